//! What happens in the demo, in order.

use std::{collections::BTreeMap, time::Duration};

use interrex_actors::env::{Env as _, Moment, SystemEnv, ms};
use interrex_events::journal::Stamp as _;
use interrex_projections::{Run, RunEnd, human_ms};

use super::{
    DemoError, DemoOptions, Ended, live,
    screen::{Screen, Tone},
    story::Story,
    summary,
};
use crate::sandbox::{ALPHA, BETA, Done, Sandbox, Writer};

/// How often the table is redrawn and the journal looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a line is written where nothing can be redrawn.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// How long the client is watched before the blow and after the failover.
const WATCH: Duration = Duration::from_secs(3);
/// Rows the client writes in a second.
const ROWS_PER_SECOND: f64 = 50.0;
/// How long the failover may take after the threshold before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What Redis is given to keep.
pub(super) const REDIS_KEY: &str = "demo:note";
pub(super) const REDIS_VALUE: &str = "written before alpha died";

/// What a newcomer should know before anything happens.
pub(super) fn introduce(options: &DemoOptions, screen: &mut Screen) -> Result<(), DemoError> {
    let seconds = options.threshold.as_secs() + 15;
    let title = screen.paint(Tone::Strong, "Interrex demo");
    screen.line(&format!(
        "{title}: the main server of a small cluster dies, and the other server takes its place.\n\
         It takes about {seconds} seconds. Ctrl-C stops the demo at any moment and leaves nothing behind."
    ))
}

/// Everything from the first start to the figures.
pub(super) async fn play(
    sandbox: &Sandbox,
    options: &DemoOptions,
    screen: &mut Screen,
    begin: Moment,
) -> Result<Ended, DemoError> {
    start(sandbox, screen, begin).await?;
    let writer = write(sandbox, screen).await?;
    let blow = kill_main(sandbox, screen)?;
    let mut story = Story::from(BETA, blow.wall);
    let run = take_over(sandbox, screen, &writer, &mut story, options.threshold).await?;
    watch(sandbox, screen, &writer, WATCH).await?;
    tell(sandbox, screen, blow).await?;
    let facts = summary::Facts { run: &run, blow, acknowledged: &writer.stop(), begin };
    summary::show(sandbox, options, screen, facts).await
}

// ---- 1: two servers ----------------------------------------------------------------------------------------

/// Said before the first thing is done, for it is the longest.
pub(super) fn announce_servers(screen: &mut Screen) -> Result<(), DemoError> {
    screen.heading(
        1,
        "Two servers on this machine",
        "Each node has a PostgreSQL, a Redis and a RADIUS of its own, and an Interrex supervisor that starts them, \
         watches them and watches the other node. alpha is main: it takes the writes. beta is secondary: it receives alpha's WAL \
         and could take over.",
    )
}

async fn start(sandbox: &Sandbox, screen: &mut Screen, begin: Moment) -> Result<(), DemoError> {
    screen.line(&format!("   folder    {}", sandbox.folder().display()))?;
    screen.line(&format!("   servers   run {}, on free ports of 127.0.0.1", sandbox.servers_run()))?;
    done(screen, "two data directories: initdb, roles, tables, and a copy for beta", since(begin))?;
    for node in sandbox.nodes() {
        sandbox.start_supervisor(node.id)?;
    }
    let healthy = timed(sandbox.wait_healthy(ALPHA)).await?;
    done(screen, "alpha: the supervisor has started its servers and reports that all is well", healthy)?;
    let healthy = timed(sandbox.wait_healthy(BETA)).await?;
    done(screen, "beta: the same", healthy)?;
    let streaming = timed(sandbox.wait_streaming(ALPHA, BETA)).await?;
    done(screen, "alpha's PostgreSQL reports that beta receives its WAL", streaming)?;
    let accepted = timed(sandbox.wait_radius(ALPHA)).await?;
    done(screen, "alpha's RADIUS accepts a user from the table in PostgreSQL", accepted)
}

async fn timed<T>(work: impl Future<Output = Done<T>>) -> Done<Duration> {
    let begin = SystemEnv.moment();
    work.await?;
    Ok(since(begin))
}

fn done(screen: &mut Screen, what: &str, took: Duration) -> Result<(), DemoError> {
    let mark = screen.paint(Tone::Good, "done");
    let took = screen.paint(Tone::Faint, &format!("({})", human_ms(ms(took))));
    screen.line(&format!("   {mark}      {what}  {took}"))
}

// ---- 2: a client -------------------------------------------------------------------------------------------

async fn write(sandbox: &Sandbox, screen: &mut Screen) -> Result<Writer, DemoError> {
    screen.heading(
        2,
        "A client writes",
        &format!(
            "It inserts {ROWS_PER_SECOND} rows a second, and notes only those that the database says are committed. It \
             knows both servers and uses the one that takes writes, as every libpq client can: {}",
            sandbox.multi_host_address()
        ),
    )?;
    sandbox.redis(ALPHA, &["SET", REDIS_KEY, REDIS_VALUE]).await?;
    // asynchronous as PostgreSQL here; the demo promises only what had arrived
    sandbox.redis(ALPHA, &["WAIT", "1", "2000"]).await?;
    let writer = sandbox.start_writer(ROWS_PER_SECOND)?;
    writer.wait_acknowledged(1, PATIENCE).await?;
    watch(sandbox, screen, &writer, WATCH).await?;
    Ok(writer)
}

// ---- 3: kill -9 --------------------------------------------------------------------------------------------

fn kill_main(sandbox: &Sandbox, screen: &mut Screen) -> Result<Moment, DemoError> {
    screen.heading(
        3,
        "kill -9",
        "alpha loses everything in one moment, as in a power cut: its supervisor, PostgreSQL with all its processes, \
         Redis and RADIUS. No process informs beta. It only sees that alpha is silent, and it waits for the threshold, because a \
         slow main is not a dead main. (With two nodes and no third opinion, a cut cable looks the same. That is `quorum none`, \
         which Interrex always shows as unprotected.)",
    )?;
    let victims = in_words(&sandbox.processes_of(ALPHA)?);
    let blow = sandbox.kill_everything_of(ALPHA);
    let now = SystemEnv.now().format("%H:%M:%S%.3f UTC");
    let killed = screen.paint(Tone::Bad, "killed");
    screen.line(&format!("   {killed}    {victims} of alpha, at {now}"))?;
    Ok(blow)
}

/// `interrex, 9 x postgres, redis-server, freeradius`
fn in_words(processes: &[(i32, String)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, name) in processes {
        *counts.entry(name).or_default() += 1;
    }
    let words = counts.iter().map(|(name, count)| match count {
        1 => (*name).to_owned(),
        count => format!("{count} x {name}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

// ---- 4: the failover ---------------------------------------------------------------------------------------

async fn take_over(
    sandbox: &Sandbox,
    screen: &mut Screen,
    writer: &Writer,
    story: &mut Story,
    threshold: Duration,
) -> Result<Run, DemoError> {
    screen.heading(
        4,
        "beta takes over",
        "Every step is in beta's journal before it begins, and its outcome after it was observed. Times count from the kill.",
    )?;
    let begin = SystemEnv.moment();
    let mut lines = Rhythm::new(LINE_EVERY);
    while !story.is_over && since(begin) < threshold + PATIENCE {
        story.go_on(sandbox, screen)?;
        show_live(sandbox, screen, writer, &mut lines).await?;
        tokio::time::sleep(LOOK).await;
    }
    let run = sandbox.wait_run_ended(BETA).await?;
    match run.end {
        RunEnd::Completed | RunEnd::CompletedDegraded => Ok(run),
        end => Err(DemoError::NoNewMain {
            end: end.to_string(),
            problem: run.problem.clone().unwrap_or_default(),
        }),
    }
}

// ---- 5: the story ------------------------------------------------------------------------------------------

/// By the command that anybody can run on the journal, now or years later.
async fn tell(sandbox: &Sandbox, screen: &mut Screen, blow: Moment) -> Result<(), DemoError> {
    screen.heading(
        5,
        "The story, from the journal",
        "This timeline is not a separate log file. It is rebuilt from the events that Interrex itself acts on, and every event is \
         chained by its hash to the event before it.",
    )?;
    let journal = sandbox.node(BETA)?.journal();
    let since = blow.wall.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let command = format!("$ interrex timeline --journal {} --since {since}", journal.display());
    screen.line(&screen.paint(Tone::Strong, &format!("   {command}")))?;
    let program = std::env::current_exe().map_err(DemoError::System)?;
    let mut child = tokio::process::Command::new(program);
    child.arg("timeline").arg("--journal").arg(&journal).args(["--since", &since]);
    child.stdin(std::process::Stdio::null()).stdout(screen.for_child()?).kill_on_drop(true);
    let end = child.status().await.map_err(DemoError::System)?;
    if !end.success() {
        screen.line(&format!("   (the command ended with {end})"))?;
    }
    Ok(())
}

// ---- watching ----------------------------------------------------------------------------------------------

/// Shows how everything is, for a while.
async fn watch(
    sandbox: &Sandbox,
    screen: &mut Screen,
    writer: &Writer,
    time: Duration,
) -> Result<(), DemoError> {
    let begin = SystemEnv.moment();
    let mut lines = Rhythm::new(LINE_EVERY);
    while since(begin) < time {
        show_live(sandbox, screen, writer, &mut lines).await?;
        tokio::time::sleep(LOOK).await;
    }
    screen.let_block_stand();
    Ok(())
}

async fn show_live(
    sandbox: &Sandbox,
    screen: &mut Screen,
    writer: &Writer,
    lines: &mut Rhythm,
) -> Result<(), DemoError> {
    let sights = live::look(sandbox, Some(writer)).await;
    let silence = live::silence(&sights).map(|(who, silent, allowed)| {
        let (silent, allowed) = (human_ms(ms(silent)), human_ms(ms(allowed)));
        format!("{who}: main has been silent for {silent}; after {allowed} I take over")
    });
    if screen.is_live {
        let mut block = live::table(&sights, screen);
        block.extend(silence.map(|words| screen.paint(Tone::Bad, &format!("   {words}"))));
        return screen.draw(block);
    }
    if lines.is_due() {
        screen.line(&format!("   {}", live::one_line(&sights)))?;
        if let Some(words) = silence {
            screen.line(&format!("   {words}"))?;
        }
    }
    Ok(())
}

/// Something that is done every so often.
struct Rhythm {
    every: Duration,
    last: Option<Moment>,
}

impl Rhythm {
    fn new(every: Duration) -> Self {
        Self { every, last: None }
    }

    fn is_due(&mut self) -> bool {
        let due = self.last.is_none_or(|last| since(last) >= self.every);
        if due {
            self.last = Some(SystemEnv.moment());
        }
        due
    }
}

pub(super) fn since(begin: Moment) -> Duration {
    SystemEnv.moment().monotonic.saturating_sub(begin.monotonic)
}
