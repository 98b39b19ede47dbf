//! What a standby is made of: nothing but a promotion ends its recovery.

use std::{fs, io::Write as _};

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::ports::{HandoverPort as _, PostgresPort as _, StopMode};

use crate::pair::{LIMIT, Pair, on_one_thread, slot};

/// No UTF-8.
const LATIN1: &[u8] = b"# by hand in Z\xfcrich\nlog_line_prefix = '%m [%p] \xe9 '\n";

#[test]
fn what_would_end_its_recovery_anywhere_ends_none() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let node = pair.sandbox.node(ALPHA).unwrap();
        let (data_dir, trigger) = (node.data_dir(), node.folder.join("promote-me"));
        fs::write(&trigger, "").unwrap();
        let append = |file: &std::path::Path, text: &[u8]| {
            fs::OpenOptions::new().append(true).open(file).unwrap().write_all(text).unwrap();
        };
        let mut leftovers = "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n".to_owned();
        if fs::read_to_string(data_dir.join("PG_VERSION")).unwrap().trim().parse::<u32>().unwrap() < 16 {
            leftovers += &format!("promote_trigger_file = '{}'\n", trigger.display());
        }
        // a file that postgresql.conf includes
        append(&node.folder.join("postgresql.node.conf"), leftovers.as_bytes());
        append(&data_dir.join("postgresql.auto.conf"), LATIN1);
        fs::write(data_dir.join("recovery.signal"), "").unwrap();
        pair.alpha.could_become_standby().await.unwrap();

        let proof = pair.alpha.hand_down(LIMIT).await.unwrap();
        pair.beta_has(proof.end).await;
        pair.beta.promote().await.unwrap();
        pair.beta.ensure_slot(ALPHA).await.unwrap();
        pair.alpha.become_standby(&pair.conninfo(&pair.alpha, BETA), &slot(ALPHA), None).await.unwrap();
        pair.alpha.start().await.unwrap();
        pair.streams(BETA, ALPHA).await;
        // somebody's since
        for sql in
            ["ALTER SYSTEM SET recovery_target = 'immediate'", "ALTER SYSTEM RESET recovery_target_action"]
        {
            pair.sandbox.psql(ALPHA, sql).await.unwrap();
        }
        pair.alpha.stop(StopMode::Fast).await.unwrap();
        fs::write(data_dir.join("recovery.signal"), "").unwrap();
        pair.alpha.start().await.unwrap();
        pair.streams(BETA, ALPHA).await;
        assert!(pair.alpha.promotion().await.unwrap().is_none());
        assert!(!data_dir.join("recovery.signal").exists());
        let after = fs::read(data_dir.join("postgresql.auto.conf")).unwrap();
        let prefix = LATIN1.split(|byte| *byte == b'\n').nth(1).unwrap();
        assert!(
            after.windows(prefix.len()).any(|part| part == prefix),
            "{}",
            String::from_utf8_lossy(&after)
        );
    });
}
