//! `interrex journal verify`: whether the journal is what was recorded.

use std::{
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use interrex_events::{
    ClusterId, NodeId,
    journal::{JournalError, JournalReader, Verification},
};
use serde::Serialize;

use super::super::{
    arguments::Reading,
    exit::Exit,
    failure::Failure,
    output::{self, Output, Style, Tone},
    source::Source,
    table::Table,
};

#[derive(Serialize)]
struct Verified<'a> {
    journal: String,
    cluster_id: ClusterId,
    node: NodeId,
    sound: bool,
    #[serde(flatten)]
    found: &'a Verification,
}

/// Walks every chain in the journal.
pub(in crate::cli) fn show(reading: &Reading, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let source = Source::open(reading)?;
    let (path, identity) = (source.path.clone(), source.identity());
    let found = verify_with_progress(source.into_reader(), &path)?;
    let sound = found.broken.is_none();
    let verified = Verified {
        journal: path.display().to_string(),
        cluster_id: identity.cluster_id,
        node: identity.node_id,
        sound,
        found: &found,
    };
    if reading.json {
        output.json(&verified)?;
    } else {
        let text = in_text(&verified, output.style);
        output.text(&text)?;
    }
    Ok(if sound { Exit::Fine } else { Exit::JournalUnusable })
}

/// The walk has a thread of its own, so that somebody can say that it goes on.
fn verify_with_progress(reader: JournalReader, path: &Path) -> Result<Verification, Failure> {
    let (tell, told) = channel();
    let walk = std::thread::spawn(move || {
        // whoever asked waits until the end
        let _ = tell.send(reader.verify());
    });
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let mut seconds = 0;
    let found = loop {
        match told.recv_timeout(Duration::from_secs(1)) {
            Ok(found) => break found,
            Err(RecvTimeoutError::Timeout) => {
                seconds += 1;
                if terminal && seconds >= 2 {
                    output::say_in_place(&format!("checking {}, {seconds} s so far ...", path.display()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let detail = "the walk over it ended unexpectedly".to_owned();
                break Err(JournalError::Failed { path: path.to_owned(), detail });
            }
        }
    };
    if terminal && seconds >= 2 {
        output::say_in_place("");
    }
    // it has sent its answer, or panicked and said so on standard error
    let _ = walk.join();
    Ok(found?)
}

fn in_text(verified: &Verified<'_>, style: Style) -> String {
    let found = verified.found;
    let verdict = match &found.broken {
        None => style
            .paint(Tone::Good, "SOUND: every event is what was recorded, and none is missing between them"),
        Some(broken) => style.paint(Tone::Bad, &format!("DAMAGED: {broken}")),
    };
    let mut heads = Table::headed(["NODE", "EVENTS", "HASH OF THE NEWEST"]).right([0, 1]);
    for head in &found.heads {
        heads.row([
            head.node_id.to_string().into(),
            head.node_seq.to_string().into(),
            head.hash.to_string().into(),
        ]);
    }
    let next = match &found.broken {
        None => "",
        Some(_) => "\nKeep the file as evidence, and restore the journal from a copy or from a peer.\n",
    };
    format!(
        "Journal of node {}, cluster {}\n{verdict}\n{} events checked\n\n{}{next}",
        verified.node,
        verified.cluster_id,
        found.events,
        heads.render(style)
    )
}
