//! Whether this node could rejoin behind main now: the checks by which the steps of a rejoin decide. A dry run shows them, and the
//! run's first step makes the same. They change nothing.

use std::time::Duration;

use interrex_events::{NodeId, PostgresStatus};
use interrex_projections::{Run, human_bytes};

use super::{
    Servers,
    fork_report::{count_fork, main_lacks_nothing},
    handover_check::in_time,
    rejoin::{self, Parting},
};
use crate::{
    messages::StepReport,
    node::Shared,
    ports::{Answer, KeepRequest, PortError, ReturnSlot, slot_name},
    wire::Check,
};

/// How long the WAL may be read: the run itself has more time, and a person waits for this answer.
const LOG_LIMIT: Duration = Duration::from_secs(2);

/// How long main may take to notice that the receiver on the slot is gone.
const SLOT_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// The step `check_lineage`. What main will refuse a standby is found in it too, a slot and the login for replication: the
/// directory is copied aside right after it, for hours if it is large, and would be for nothing.
pub(super) async fn check_lineage(shared: &Shared, servers: &Servers, run: &Run) -> Answer<StepReport> {
    if rejoin::wants_copy(run) {
        can_be_copied(servers, run.new_main).await?;
    }
    let (compared, logged_in) =
        tokio::join!(rejoin::check_lineage(shared, servers, run), rejoin::log_in(servers, run.new_main));
    let compared = compared?;
    if compared.outcome.is_success() {
        if Parting::in_report(&compared).is_some_and(|parting| !parting.is_rewindable()) {
            can_be_copied(servers, run.new_main).await?;
        }
        logged_in?;
        slot_can_be_had(shared, servers, run.new_main).await?;
    }
    Ok(compared)
}

/// Checks that a copy of main's data may take the place of this directory.
async fn can_be_copied(servers: &Servers, main: NodeId) -> Answer<()> {
    servers.rejoin.is_replaceable()?;
    servers.main_server(main)?.can_be_copied().await
}

async fn slot_can_be_had(shared: &Shared, servers: &Servers, main: NodeId) -> Answer<()> {
    let (me, name) = (shared.settings.me, shared.look(|view| view.cluster.nodes.name(main)));
    let server = servers.main_server(main)?;
    let began = shared.env.moment().monotonic;
    loop {
        let slot = server.return_slot(me).await?;
        let Some(obstacle) = slot.obstacle() else { return Ok(()) };
        let patient = shared.env.moment().monotonic.saturating_sub(began) < SLOT_PATIENCE;
        // a receiver of its own under another name has just ended with PostgreSQL here
        if !patient || !matches!(slot, ReturnSlot::InUse(_)) {
            return Err(PortError(format!("{name}: {obstacle}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Everything that can be known before anything is stopped, good and bad.
pub(super) async fn look(shared: &Shared, servers: &Servers, main: NodeId, copy: bool) -> Vec<Check> {
    let (lineage, login) = tokio::join!(
        in_time(rejoin::lineage_of(shared, servers, main)),
        in_time(rejoin::log_in(servers, main))
    );
    let login = match login {
        Ok(words) => Check::good("replication login", words),
        Err(refusal) => Check::bad("replication login", refusal),
    };
    let lineage = match lineage {
        Ok(lineage) => lineage,
        Err(error) => return vec![Check::unknown("login on main", error), login],
    };
    let here = servers.postgres.measure().await.facts.status;
    let compared = match here {
        PostgresStatus::Stopped => Some(rejoin::compare(shared, servers, (main, lineage), copy).await),
        _ => None,
    };
    let slot = slot(shared, servers, main, here).await;
    let room = room(shared, servers, main, (compared.as_ref(), copy)).await;
    [Some(told(compared)), Some(slot), Some(login), room].into_iter().flatten().collect()
}

/// What is running stays so, and then cannot be compared.
fn told(compared: Option<StepReport>) -> Check {
    let subject = "lineage";
    match compared {
        None => Check::good(
            subject,
            "PostgreSQL runs on this node: it would be stopped first, and its data would then be compared",
        ),
        Some(report) if report.outcome.is_success() => Check::good(subject, report.detail),
        Some(report) => Check::bad(subject, report.detail),
    }
}

/// What the step `reserve_slot` needs of main.
async fn slot(shared: &Shared, servers: &Servers, main: NodeId, here: PostgresStatus) -> Check {
    let subject = "slot on main";
    let (me, name) = (shared.settings.me, shared.look(|view| view.cluster.nodes.name(main)));
    match in_time(async { servers.main_server(main)?.return_slot(me).await }).await {
        Err(error) => Check::unknown(subject, format!("the slots of {name} are not known: {error}")),
        Ok(ReturnSlot::There) => Check::good(subject, format!("slot {} exists on {name}", slot_name(me))),
        Ok(ReturnSlot::ToBeMade) => {
            Check::good(subject, format!("slot {} would be made on {name}: one is free", slot_name(me)))
        }
        Ok(ReturnSlot::InUse(_)) if here != PostgresStatus::Stopped => Check::good(
            subject,
            format!("slot {} is in use on {name}, while PostgreSQL runs on this node", slot_name(me)),
        ),
        Ok(ReturnSlot::InUse(words) | ReturnSlot::Withheld(words)) => {
            Check::bad(subject, format!("{name}: {words}"))
        }
    }
}

/// Room for what is kept, and for a copy of main's data if one would be made. Nothing if neither is known to be needed.
async fn room(
    shared: &Shared,
    servers: &Servers,
    main: NodeId,
    (compared, copy): (Option<&StepReport>, bool),
) -> Option<Check> {
    let parting = compared.and_then(Parting::in_report);
    let found = match parting {
        // a directory that only may be copied says so in its lineage
        None if !copy => return None,
        Some(parting) if !copy && parting.is_rewindable() => {
            room_to_keep(shared, servers, main, &parting).await
        }
        _ => room_to_copy(shared, servers, main).await,
    };
    Some(match found {
        Ok(words) => Check::good("room", words),
        Err(words) => Check::bad("room", words),
    })
}

/// As the steps `report_fork` and `keep_diverged` find it.
async fn room_to_keep(
    shared: &Shared,
    servers: &Servers,
    main: NodeId,
    parting: &Parting,
) -> Result<String, String> {
    let reading = servers.handover.fork(parting.timeline, parting.switchpoint, LOG_LIMIT);
    let counted = match in_time(count_fork(servers, main, reading)).await {
        Ok(counted) if main_lacks_nothing(&counted) => {
            return Ok(format!("{}: nothing has to be kept", counted.detail));
        }
        Ok(counted) => counted.detail,
        Err(error) => format!("what was committed only on this node was not counted in time ({error})"),
    };
    let kept = in_time(servers.rejoin.room_to_keep(&request(shared))).await?;
    let folder = shared.settings.rejoin.keep_in.display();
    Ok(match kept {
        0 => format!("{counted}; a copy of the same data is kept in {folder} already"),
        bytes => format!("{counted}; there is room to keep {} in {folder}", human_bytes(bytes)),
    })
}

/// As the step `rebuild` finds it.
async fn room_to_copy(shared: &Shared, servers: &Servers, main: NodeId) -> Result<String, String> {
    let size = async { servers.main_server(main)?.size().await };
    let bytes = in_time(size).await.map_err(|error| format!("the size of the copy is not known: {error}"))?;
    servers.rejoin.room_to_replace(bytes).map_err(|error| error.to_string())?;
    let mut words = format!("there is room for a copy of main's {}", human_bytes(bytes));
    if let Some(archived) = room_to_archive(shared, servers).await.map_err(|error| error.to_string())? {
        let folder = shared.settings.rejoin.keep_in.display();
        words +=
            &format!(", and for the {} that are kept in {folder}, on another volume", human_bytes(archived));
    }
    Ok(words)
}

/// An old directory that no rename brings to the kept copies is copied there.
async fn room_to_archive(shared: &Shared, servers: &Servers) -> Answer<Option<u64>> {
    let request = request(shared);
    if servers.rejoin.must_make_room_beside(&request.into).is_none() {
        return Ok(None);
    }
    servers.rejoin.room_to_keep(&request).await.map(Some)
}

fn request(shared: &Shared) -> KeepRequest {
    KeepRequest {
        into: shared.settings.rejoin.keep_in.clone(),
        reason: String::new(),
        switchpoint: None,
        stranded: None,
        before_rewind: false,
        at: shared.env.moment().wall,
    }
}
