//! Every view against a file in `golden/`, whole. `UPDATE_GOLDEN=1 cargo test -p interrex --lib cli` rewrites them.

mod exports;
mod plans;
mod sealed;
pub(in crate::cli) mod stream;
mod time_travel;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use clap::Parser as _;
use interrex_actors::wire::NodeReport;
use interrex_events::{
    Epoch, NodeId, PostgresStatus, RedisStatus, Role, TimelineId, cluster_events::StreamVerification,
};
use interrex_projections::NodeStatus;

use self::stream::{ALPHA, Author, BETA, OTHER_RUN, RUN, TAKEOVER, at, report};
use super::{
    Exit, Failure, Outside, Style,
    arguments::Arguments,
    dispatch,
    output::Output,
    outside::{Answer, Question, Silence},
    run,
};
use crate::config::Config;

const CONFIG: &str = r#"
[cluster]
id = "018f0000-0000-7000-8000-000000000001"
secret_file = "secret"
[node]
id = 2
name = "beta"
role = "secondary"
listen = "127.0.0.1:7402"
journal = "beta.db"
[failover]
auto_failover_threshold_seconds = 5
[postgres]
data_dir = "pgdata"
[[dependents]]
name = "radius"
command = ["freeradius", "-f"]
ready_command = ["radclient", "127.0.0.1"]
[[peers]]
id = 1
name = "alpha"
address = "127.0.0.1:7401"
postgres = "127.0.0.1:5401"
main = true
"#;

/// A folder with beta's configuration and journal, a fixed time, and supervisors that answer as told.
struct Stage {
    folder: tempfile::TempDir,
    now: DateTime<Utc>,
    reports: Vec<NodeReport>,
    /// How long a command waited, each time.
    waits: std::cell::RefCell<Vec<std::time::Duration>>,
    /// How often Enter is pressed before `q`; nothing where there is no keyboard.
    enters: std::cell::Cell<Option<u32>>,
}

impl Stage {
    fn set(now_ms: i64, story: impl FnOnce(Author) -> Author) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("interrex.toml"), CONFIG).unwrap();
        story(Author::of(&folder.path().join("beta.db"), BETA));
        Self {
            folder,
            now: at(now_ms),
            reports: Vec::new(),
            waits: Default::default(),
            enters: Default::default(),
        }
    }

    fn failed_over() -> Self {
        Self::set(900_000, |author| author.quiet_morning().death_of_main().new_main())
    }

    fn with(mut self, reports: impl IntoIterator<Item = NodeReport>) -> Self {
        self.reports.extend(reports);
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Parses a command line; `@name` is a file of the stage.
    fn parse(&self, line: &str) -> Arguments {
        let folder = format!("{}/", self.folder.path().display());
        let words = line.split(' ').map(|word| word.replace('@', &folder));
        Arguments::try_parse_from(std::iter::once("interrex".to_owned()).chain(words)).unwrap()
    }

    fn show(&self, line: &str, style: Style) -> (Exit, String) {
        let mut bytes = Vec::new();
        let mut output = Output::to(&mut bytes, style);
        let exit = run(self.parse(line).command, self, &mut output);
        drop(output);
        let text = String::from_utf8(bytes).unwrap();
        (exit, text.replace(&self.folder.path().display().to_string(), "FOLDER"))
    }

    fn fail(&self, line: &str) -> Failure {
        let mut bytes = Vec::new();
        dispatch(self.parse(line).command, self, &mut Output::to(&mut bytes, Style::default())).unwrap_err()
    }

    /// Compares the whole answer with a golden file, and a coloured one with the same without its colours.
    fn golden(&self, name: &str, line: &str, expected: Exit) {
        let style = Style { colour: false, width: Some(110) };
        let (exit, text) = self.show(line, style);
        let (_, coloured) = self.show(line, Style { colour: true, ..style });
        assert_eq!(without_colours(&coloured), text, "{name}: colours change the text");
        compare(name, &text);
        assert_eq!(exit, expected, "{name}:\n{text}");
    }
}

impl Outside for Stage {
    fn now(&self) -> DateTime<Utc> {
        self.now
    }

    fn verify_cluster_events(&self, config: &Config) -> Result<StreamVerification, Failure> {
        let port = config.postgres.port;
        Err(Failure::Unusable(format!(
            "PostgreSQL at 127.0.0.1:{port} does not answer for cluster_events: refused"
        )))
    }

    fn ask(&self, questions: &[Question]) -> BTreeMap<NodeId, Answer> {
        let answer = |question: &Question| {
            let report = self.reports.iter().find(|report| report.node == question.node).cloned();
            report.ok_or_else(|| Silence {
                not_running: true,
                words: format!("{}: Connection refused (os error 111)", question.address),
            })
        };
        questions.iter().map(|question| (question.node, answer(question))).collect()
    }

    fn wait(&self, duration: std::time::Duration) -> Result<bool, Failure> {
        self.waits.borrow_mut().push(duration);
        Ok(true)
    }

    fn has_keyboard(&self) -> bool {
        self.enters.get().is_some()
    }

    fn wait_for_enter(&self) -> Result<bool, Failure> {
        let left = self.enters.get().unwrap_or_default();
        self.enters.set(left.checked_sub(1));
        Ok(left > 0)
    }

    fn typed(&self, _: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }
}

/// Compares an answer with its golden file.
fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == golden, "{name} is not as in its golden file, but:\n{text}");
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest))
}

/// Beta after its promotion.
fn beta_as_main() -> NodeReport {
    let mut beta = report(BETA);
    (beta.role, beta.main, beta.epoch) = (Role::Main, Some(BETA), Epoch(2));
    (beta.postgres.status, beta.postgres.timeline) = (PostgresStatus::Primary, Some(TimelineId(2)));
    beta.redis.status = RedisStatus::Master;
    (beta.lag, beta.main_silent_ms) = (None, None);
    beta
}

#[test]
fn status_while_all_is_well() {
    let stage = Stage::set(90_000, Author::quiet_morning).with([report(ALPHA), report(BETA)]);
    stage.golden("status-healthy.txt", "status --config @interrex.toml", Exit::Fine);
    stage.golden("status-healthy.json", "status --json --config @interrex.toml", Exit::Fine);
    stage.golden("nodes-live.txt", "nodes --config @interrex.toml", Exit::Fine);
}

#[test]
fn status_while_main_is_silent() {
    let mut beta = report(BETA);
    (beta.healthy, beta.main_silent_ms) = (false, Some(5_100));
    beta.postgres.status = PostgresStatus::Detached;
    beta.problems = vec!["PostgreSQL receives no log from main".to_owned()];
    let stage = Stage::set(605_100, |author| author.quiet_morning().death_of_main()).with([beta]);
    stage.golden("status-down.txt", "status --config @interrex.toml", Exit::NotHealthy);
}

#[test]
fn status_tells_what_keeps_a_standby_from_taking_over() {
    let with = |change: fn(&mut NodeReport)| {
        let mut beta = report(BETA);
        change(&mut beta);
        let stage = Stage::set(90_000, Author::quiet_morning).with([report(ALPHA), beta]);
        stage.show("status --config @interrex.toml", Style::default())
    };
    let (exit, detached) = with(|beta| beta.postgres.status = PostgresStatus::Detached);
    assert!(detached.contains("could take over now: beta, and would lose at least 160 bytes"), "{detached}");
    assert_eq!(exit, Exit::Fine);
    let (_, nothing_known) = with(|beta| (beta.postgres.status, beta.lag) = (PostgresStatus::Detached, None));
    assert!(nothing_known.contains("would lose an unknown amount"), "{nothing_known}");

    let (exit, coming_back) = with(|beta| beta.run = Some((RUN, Vec::new())));
    let words = format!("beta could not take over now: its run {} is still running", RUN.short());
    assert!(coming_back.contains(&words), "{coming_back}");
    assert!(!coming_back.contains("could take over now: "), "{coming_back}");
    assert!(coming_back.contains("no node could take over if main died now"), "{coming_back}");
    assert_eq!(exit, Exit::NotHealthy);
    let (_, taking_over) = with(|beta| (beta.run, beta.taking_over) = (Some((RUN, Vec::new())), Some(true)));
    assert!(taking_over.contains("could take over now: beta"), "{taking_over}");
}

#[test]
fn status_after_a_failover() {
    let stage = Stage::failed_over().with([beta_as_main()]);
    stage.golden("status-after-failover.txt", "status --config @interrex.toml", Exit::NotHealthy);
}

#[test]
fn status_while_two_nodes_accept_writes() {
    let stage = Stage::failed_over().with([report(ALPHA), beta_as_main()]);
    stage.golden("status-split.txt", "status --config @interrex.toml", Exit::NotHealthy);
}

#[test]
fn of_two_mains_of_the_same_epoch_the_lowest_id_keeps_it() {
    let mut alpha = report(ALPHA);
    alpha.epoch = Epoch(2);
    let stage = Stage::failed_over().with([alpha, beta_as_main()]);
    let (_, text) = stage.show("status --config @interrex.toml", Style::default());
    assert!(text.contains("both hold epoch 2, and then the lowest node id, alpha, keeps the role"), "{text}");
    assert!(text.contains("The supervisor of beta stops its servers by itself"), "{text}");
}

#[test]
fn a_node_that_serves_beside_a_silent_main_is_not_called_an_outage() {
    let mut beta = report(BETA);
    (beta.postgres.status, beta.lag) = (PostgresStatus::Primary, None);
    let stage = |beta: NodeReport| Stage::set(90_000, Author::quiet_morning).with([beta]);
    let status = |beta| stage(beta).show("status --config @interrex.toml", Style::default()).1;
    let text = status(beta.clone());
    assert!(text.contains("SPLIT") && text.contains("PostgreSQL of alpha may accept writes too"), "{text}");
    (beta.run, beta.taking_over) = (Some((RUN, Vec::new())), Some(true));
    let text = status(beta);
    assert!(
        text.contains("DOWN") && !text.contains("SPLIT"),
        "a failover between its promotion and its epoch: {text}"
    );
}

#[test]
fn a_node_that_goes_by_an_older_epoch_is_not_called_ready() {
    let mut late = report(ALPHA);
    late.role = Role::Secondary;
    late.postgres.status = PostgresStatus::Streaming;
    let stage = Stage::failed_over().with([late, beta_as_main()]);
    let (_, text) = stage.show("status --config @interrex.toml", Style::default());
    assert!(text.contains("alpha could not take over now: it knows epoch 1"), "{text}");
}

#[test]
fn status_without_a_supervisor_in_the_middle_of_a_run() {
    let stage = Stage::set(700_000, |author| author.quiet_morning().death_of_main());
    stage.golden("status-interrupted.txt", "status --config @interrex.toml", Exit::NotHealthy);
    stage.golden("run-show-interrupted.txt", "run show --config @interrex.toml", Exit::Fine);
}

#[test]
fn status_of_a_fenced_node() {
    let stage = Stage::set(960_000, |author| author);
    Author::of(&stage.path("alpha.db"), ALPHA).return_of_the_old_main();
    stage.golden("status-fenced.txt", "status --journal @alpha.db", Exit::NotHealthy);
    let mut alpha = report(ALPHA);
    (alpha.status, alpha.role, alpha.epoch) = (NodeStatus::Fenced, Role::Secondary, Epoch(2));
    let config = CONFIG.replace("id = 1", "id = 0").replace("id = 2", "id = 1").replace("id = 0", "id = 2");
    let config = config.replace("beta.db", "alpha.db").replace("\"alpha\"", "\"other\"");
    std::fs::write(stage.path("interrex.toml"), config).unwrap();
    let (_, text) = stage.with([alpha]).show("status --config @interrex.toml", Style::default());
    assert!(text.contains("- alpha is fenced"), "{text}");
}

#[test]
fn a_journal_alone() {
    let stage = Stage::failed_over();
    stage.golden("status-journal.txt", "status --journal @beta.db", Exit::NotHealthy);
    stage.golden("nodes-journal.txt", "nodes --journal @beta.db", Exit::Fine);
    stage.golden("nodes-journal.json", "nodes --json --journal @beta.db", Exit::Fine);
}

#[test]
fn timeline_whole_and_in_part() {
    let stage = Stage::set(90_000_000, |author| author.quiet_morning().death_of_main().new_main().bad_day());
    stage.golden("timeline.txt", "timeline --journal @beta.db", Exit::Fine);
    let run = format!("timeline --journal @beta.db --run {}", RUN.short());
    stage.golden("timeline-run.txt", &run, Exit::Fine);
    let part =
        "timeline --json --journal @beta.db --since 2027-01-15T08:10:00Z --until 2027-01-15T08:10:05.051Z";
    stage.golden("timeline-part.jsonl", part, Exit::Fine);
    let (_, nothing) = stage.show("timeline --journal @beta.db --since 1s", Style::default());
    assert_eq!(nothing, "Nothing was recorded there.\n");
}

#[test]
fn events_by_kind_and_by_run() {
    let stage = Stage::failed_over();
    stage.golden("events.txt", "events --journal @beta.db", Exit::Fine);
    let kinds =
        "events --json --journal @beta.db --kind failover_withheld,moon_phase_observed --kind main_lost";
    stage.golden("events-kinds.jsonl", kinds, Exit::Fine);
    let slip = stage.fail("events --journal @beta.db --kind failover_witheld");
    assert!(slip.in_words().contains("did you mean `failover_withheld`?"), "{}", slip.in_words());
}

#[test]
fn runs_listed_and_shown() {
    let stage = Stage::set(90_000_000, |author| author.quiet_morning().death_of_main().new_main().bad_day());
    stage.golden("run-list.txt", "run list --journal @beta.db", Exit::Fine);
    stage.golden("run-show-newest.txt", "run show --journal @beta.db", Exit::Fine);
    let show = format!("run show {} --journal @beta.db", RUN.short());
    stage.golden("run-show.txt", &show, Exit::Fine);
    stage.golden("run-show.json", &format!("{show} --json"), Exit::Fine);
    let (_, none) = Stage::set(0, |author| author).show("run list --journal @beta.db", Style::default());
    assert!(none.starts_with("No run since this journal began"), "{none}");
}

#[test]
fn of_a_switchover_the_half_with_the_certificate_is_shown_and_each_half_names_the_other() {
    let stage = Stage::set(400_000, Author::takeover);
    let (_, alone) = stage.show("run show --journal @beta.db", Style::default());
    assert!(alone.contains("RUN         takeover from alpha to beta"), "{alone}");
    assert!(alone.contains("OTHER HALF  run a0a01111; no event of it is here yet"), "{alone}");
    Author::of(&stage.path("alpha.db"), ALPHA).switchover();
    let of_alpha = exports::records(&stage.path("alpha.db"));
    Author::of(&stage.path("beta.db"), BETA).learns(of_alpha, Epoch(2));
    stage.golden("run-show-switchover.txt", "run show --journal @beta.db", Exit::Fine);
    let half = format!("run show {} --journal @beta.db", TAKEOVER.short());
    let (_, half) = stage.show(&half, Style::default());
    let link = "OTHER HALF  the switchover by alpha, completed: interrex run show a0a01111";
    assert!(half.contains(link), "{half}");
}

#[test]
fn a_run_that_is_shown_does_not_say_to_show_it() {
    let shown = format!("interrex run show {}", OTHER_RUN.short());
    let row = |rest: &str| {
        let stage = Stage::set(900_000, |author| author.rolled_back(&format!("{shown}{rest}")));
        let (_, text) = stage.show("run show --journal @beta.db", Style::default());
        text.lines().find_map(|line| line.strip_prefix("NEXT")).map(|next| next.trim().to_owned())
    };
    assert_eq!(row("; this node is a standby again").as_deref(), Some("this node is a standby again"));
    let why = "interrex timeline, which shows why";
    assert_eq!(row(&format!(", and {why}")).as_deref(), Some(why));
    assert_eq!(row(""), None);
}

#[test]
fn a_run_is_named_by_whatever_no_other_run_shares() {
    let stage = Stage::set(90_000_000, |author| author.quiet_morning().death_of_main().new_main().bad_day());
    for id in [OTHER_RUN.to_string(), OTHER_RUN.short(), "019BBF3F".to_owned(), "de".to_owned()] {
        let (exit, text) = stage.show(&format!("run show {id} --journal @beta.db"), Style::default());
        assert_eq!(exit, Exit::Fine);
        assert!(text.contains(&OTHER_RUN.to_string()), "{id}: {text}");
    }
    let none = stage.fail("run show 00000000 --journal @beta.db");
    assert!(none.to_string().starts_with("there is no run `00000000` in the journal"), "{none}");
    assert_eq!(none.exit(), Exit::NotFound);
    let both = stage.fail("run show 019b --journal @beta.db");
    assert_eq!(both.to_string(), format!("`019b` may mean any of {RUN}, {OTHER_RUN}"));
    assert_eq!(stage.fail("run show newest --journal @beta.db").exit(), Exit::WrongUsage);
}

#[test]
fn verify_names_the_first_bad_event() {
    let stage = Stage::failed_over();
    stage.golden("verify-sound.txt", "journal verify --journal @beta.db", Exit::Fine);
    damage(&stage.path("beta.db"));
    stage.golden("verify-damaged.txt", "journal verify --journal @beta.db", Exit::JournalUnusable);
    stage.golden("verify-damaged.json", "journal verify --json --journal @beta.db", Exit::JournalUnusable);
}

/// Changes one stored byte, as a failing disk would.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let found = bytes.windows(9).position(|window| window == b"all recei").unwrap();
    bytes[found] = b'A';
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn config_check_shows_what_is_in_force_and_what_is_wrong() {
    let stage = Stage::set(0, |author| author);
    std::fs::create_dir(stage.path("pgdata")).unwrap();
    std::fs::write(stage.path("pgdata/PG_VERSION"), "15").unwrap();
    std::fs::write(stage.path("pgdata/postgresql.conf"), "").unwrap();
    stage.golden("config-check-wrong.txt", "config check --config @interrex.toml", Exit::ConfigurationWrong);
    std::fs::write(stage.path("secret"), "sixteen characters\n").unwrap();
    std::fs::set_permissions(stage.path("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    stage.golden("config-check.txt", "config check --config @interrex.toml", Exit::Fine);
    stage.golden("config-check.json", "config check --json --config @interrex.toml", Exit::Fine);
    std::fs::write(stage.path("interrex.toml"), CONFIG.replace("listen", "lisen")).unwrap();
    stage.golden(
        "config-check-malformed.txt",
        "config check --config @interrex.toml",
        Exit::ConfigurationWrong,
    );
}

#[test]
fn each_kind_of_failure_has_its_own_exit_code() {
    let stage = Stage::set(0, |author| author);
    assert_eq!(stage.fail("status --journal @missing.db").exit(), Exit::JournalUnusable);
    assert_eq!(stage.fail("status --config @missing.toml").exit(), Exit::ConfigurationWrong);
    assert_eq!(stage.fail("supervise --config @interrex.toml").exit(), Exit::ConfigurationWrong);
    let reversed = "events --journal @beta.db --since 09:00 --until 08:00";
    assert_eq!(stage.fail(reversed).exit(), Exit::WrongUsage);
    let config = CONFIG.replace("018f", "0190");
    std::fs::write(stage.path("interrex.toml"), config).unwrap();
    let other = stage.fail("status --config @interrex.toml");
    assert_eq!(other.exit(), Exit::JournalUnusable);
    assert!(other.in_words().contains("belongs to node 2 of cluster 018f"), "{}", other.in_words());
}

#[test]
fn a_stranger_on_a_peers_port_is_not_taken_for_the_peer() {
    let mut stranger = report(ALPHA);
    stranger.cluster_id.0 = uuid::Uuid::nil();
    let stage = Stage::set(90_000, Author::quiet_morning).with([stranger, report(BETA)]);
    let (exit, text) = stage.show("status --config @interrex.toml", Style::default());
    assert_eq!(exit, Exit::NotHealthy);
    assert!(text.contains("not by node 1 of this cluster"), "{text}");
}

/// A pipe whose reader has gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let stage = Stage::failed_over();
    for line in [
        "events --journal @beta.db",
        "events --json --follow --journal @beta.db",
        "timeline --journal @beta.db",
    ] {
        let exit = run(stage.parse(line).command, &stage, &mut Output::to(Closed, Style::default()));
        assert_eq!(exit, Exit::Fine, "{line}");
    }
}

#[test]
fn the_live_view_of_a_run_steers_no_terminal_by_the_words_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.db");
    drop(stream::Author::of(&path, interrex_events::NodeId(2)).new_main());
    let journal = interrex_events::journal::JournalReader::open(&path).unwrap();
    let mut runs = interrex_projections::Runs::default();
    let (names, mut raw) = (interrex_projections::ClusterNodes::default(), 0);
    for record in journal.page(interrex_events::NodeId(2), interrex_events::NodeSeq(0), 1_000).unwrap() {
        let envelope = record.open();
        interrex_projections::Projection::apply(&mut runs, &envelope);
        let text = interrex_projections::Entry::of(&envelope, &names, &runs).text;
        raw += usize::from(text.contains(char::is_control));
        let line = super::watch::line(&envelope, &names, &runs);
        assert!(!line.contains(char::is_control), "{line:?}");
    }
    assert!(raw > 0, "some of the words would steer one");
}
