//! The screen: a label and a sentence a line, the most urgent first.

use chrono::{DateTime, Utc};
use interrex_actors::wire::Lag;
use interrex_events::{NodeId, RedisStatus};
use interrex_projections::{NodeStatus, RunEnd, human_bytes, human_ms};

use super::{
    super::{nodes::status_tone, runs},
    Health, Member, Resting, RunNow, Status,
    candidates::Candidate,
};
use crate::cli::{
    output::{Style, Tone},
    sight::Rebuilt,
    table::{Cell, Table},
    when,
};

pub(super) fn render(status: &Status<'_>, as_of: &str, style: Style) -> String {
    let head =
        format!("{} of cluster {}, as of {as_of}", called(&status.name, status.node), status.cluster_id,);
    if let Some(Rebuilt { events: 0, note: Some(note), .. }) = status.rebuilt {
        return format!("{head}\n\n{}\n", style.paint(Tone::Warning, note));
    }
    let mut screen = Screen(Table::plain());
    screen.health(status);
    screen.members(status);
    screen.protection(status);
    screen.failover(status);
    screen.run(status);
    screen.scheduled(status);
    screen.rest(status);
    format!("{head}\n\n{}", screen.0.render(style))
}

struct Screen(Table);

impl Screen {
    fn say(&mut self, label: &str, tone: Tone, words: impl Into<String>) {
        self.0.row([Cell::toned(Tone::Strong, label), Cell::toned(tone, words)]);
    }

    fn health(&mut self, status: &Status<'_>) {
        let (word, tone, words) = match status.health {
            Health::Healthy => ("HEALTHY", Tone::Good, "main serves, and everything else is as it should be"),
            Health::Degraded => {
                ("DEGRADED", Tone::Warning, "main serves, and something else is not as it should be:")
            }
            Health::Down => ("DOWN", Tone::Bad, "no node is known to accept writes:"),
            Health::Split => ("SPLIT", Tone::Bad, "more than one node accepts writes:"),
            Health::Unknown if status.rebuilt.is_some() => {
                ("PAST", Tone::Warning, "this is the state by the events up to then; no server was asked")
            }
            Health::Unknown => (
                "UNKNOWN",
                Tone::Warning,
                "this is the state by the journal; the servers may be in another state:",
            ),
        };
        self.0.row([Cell::toned(tone, word), Cell::toned(tone, words)]);
        let note = status.rebuilt.and_then(|rebuilt| rebuilt.note.as_ref());
        for problem in status.problems.iter().chain(note) {
            self.say("", Tone::Plain, format!("- {problem}"));
        }
    }

    fn members(&mut self, status: &Status<'_>) {
        match &status.main {
            Some(main) => {
                let timeline =
                    status.timeline.map(|timeline| format!(", timeline {timeline}")).unwrap_or_default();
                let words = format!("{}, epoch {}{timeline}", called(&main.name, main.node), status.epoch);
                self.say("MAIN", Tone::Strong, words);
                self.member(main, status.at);
            }
            None => {
                self.say("MAIN", Tone::Bad, format!("no node is known to be main; epoch {}", status.epoch));
            }
        }
        for other in &status.others {
            let label = if other.lag.is_some() { "FOLLOWER" } else { "OTHER NODE" };
            self.say(label, Tone::Strong, called(&other.name, other.node) + &behind(other));
            self.member(other, status.at);
        }
    }

    fn member(&mut self, member: &Member<'_>, now: DateTime<Utc>) {
        let address =
            member.postgres_address.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
        let redis = member.redis.filter(|redis| *redis != RedisStatus::None);
        let mut parts = vec![state(member, now)];
        parts.extend(member.postgres.map(|postgres| format!("PostgreSQL {postgres}{address}")));
        parts.extend(redis.map(|redis| format!("Redis {redis}")));
        parts.extend(member.dependents.iter().cloned());
        let by = if member.live { "" } else { " (by the journal)" };
        self.say("", status_tone(member.status), parts.join("; ") + by);
    }

    fn protection(&mut self, status: &Status<'_>) {
        let protection = &status.protection;
        match (protection.protected, &protection.quorum) {
            (true, Some(quorum)) => self.say("PROTECTION", Tone::Good, format!("quorum {quorum}")),
            _ => self.say(
                "PROTECTION",
                Tone::Warning,
                "unprotected: no third opinion before a failover; a cut link looks like a dead main",
            ),
        }
    }

    fn failover(&mut self, status: &Status<'_>) {
        let failover = &status.failover;
        let threshold = failover.threshold_ms.map_or_else(|| "an unknown time".to_owned(), human_ms);
        let (tone, words) = match failover.automatic {
            Some(true) => (Tone::Plain, format!("automatic, after {threshold} of main's silence")),
            Some(false) => (
                Tone::Warning,
                "OFF: no node replaces main by itself, however long main is silent".to_owned(),
            ),
            None => {
                (Tone::Plain, format!("not known here whether it is automatic; allowed silence {threshold}"))
            }
        };
        self.say("FAILOVER", tone, format!("{words} ({})", failover.decided_by));
        if let (Some(silent), Some(seen_by)) = (failover.main_silent_ms, &failover.seen_by) {
            self.say(
                "",
                Tone::Plain,
                format!("main's last sign of life reached {seen_by} {} ago", human_ms(silent)),
            );
        }
        for Resting { name, rest } in &failover.rests {
            let words = format!(
                "COOL-DOWN: {name} does not promote itself for another {}: {}; a person can promote it: interrex promote",
                human_ms(rest.left_ms),
                rest.because
            );
            self.say("", Tone::Warning, words);
        }
        if status.health != Health::Unknown {
            self.candidates(&failover.candidates);
        }
    }

    fn candidates(&mut self, candidates: &[Candidate]) {
        for Candidate { name, hindered, .. } in candidates {
            if let Some(why) = hindered {
                self.say("", Tone::Warning, format!("{name} could not take over now: {why}"));
            }
        }
        let ready = || candidates.iter().filter(|candidate| candidate.hindered.is_none());
        let by_itself: Vec<String> =
            ready().filter(|candidate| candidate.not_by_itself.is_none()).map(with_loss).collect();
        if !by_itself.is_empty() {
            self.say("", Tone::Plain, format!("could take over now: {}", by_itself.join(", ")));
        }
        for candidate in ready() {
            if let Some(why) = &candidate.not_by_itself {
                let who = with_loss(candidate);
                self.say("", Tone::Warning, format!("only by hand (interrex promote, there): {who}; {why}"));
            }
        }
        if candidates.is_empty() {
            self.say("", Tone::Warning, "no node that answers could take over now");
        }
    }

    fn run(&mut self, status: &Status<'_>) {
        let Some(run) = &status.run else {
            self.say("LAST RUN", Tone::Plain, "none since this journal began");
            return;
        };
        let label = if run.end == RunEnd::Running { "RUN" } else { "LAST RUN" };
        let words = format!("{}: {}", run.kind.of_nodes(&run.from, &run.to), how_it_went(run, status));
        self.say(label, runs::tone(run.end), words);
        if let Some(problem) = &run.problem {
            self.say("", Tone::Plain, format!("problem: {problem}"));
        }
        if let Some(next) = &run.next {
            self.say("", Tone::Strong, format!("next: {next}"));
        }
        self.say("", Tone::Faint, format!("all of it: interrex run show {}", run.short_id));
    }

    fn scheduled(&mut self, status: &Status<'_>) {
        for it in &status.scheduled {
            let by = it.asked_by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
            let why = it.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let words = format!(
                "switchover from {} to {} at {}, {}{by}{why}",
                it.by,
                it.to,
                when::date_and_time_utc(it.due),
                when::ahead(it.due, status.at)
            );
            self.say("SCHEDULED", Tone::Strong, words);
            self.say("", Tone::Faint, format!("to cancel it: interrex run cancel, on {}", it.by));
        }
    }

    fn rest(&mut self, status: &Status<'_>) {
        if let Some(withheld) = status.withheld {
            let words = format!(
                "{}: no failover, rule {}: {}",
                when::ago(withheld.at, status.at),
                withheld.decision.rule,
                withheld.decision.detail
            );
            self.say("WITHHELD", Tone::Plain, words);
        }
        for fenced in &status.fenced {
            let fence = fenced.fence;
            let how = if fence.complete { "acknowledges no writes" } else { "is being fenced" };
            let words = format!(
                "{} {how}: epoch {} superseded it, {}",
                fenced.name,
                fence.epoch,
                when::ago(fence.since, status.at)
            );
            self.say("FENCED", Tone::Bad, words);
            if let Some(error) = &fence.error {
                self.say("", Tone::Bad, format!("the fence has not succeeded yet: {error}"));
            }
            self.say("", Tone::Strong, format!("next: {}", fence.next));
        }
        if status.unknown_events > 0 {
            let words = format!("events of kinds that this version does not know: {}", status.unknown_events);
            self.say("NOT READ", Tone::Warning, words);
        }
        if status.health == Health::Unknown
            && let Some(newest) = status.newest_event_at
        {
            let words = format!("{} ({})", when::date_and_time_utc(newest), when::ago(newest, status.at));
            self.say("LAST EVENT", Tone::Plain, words);
        }
    }
}

/// A node's name and number.
fn called(name: &str, node: NodeId) -> String {
    let number = format!("node {node}");
    if name == number { number } else { format!("{name} ({number})") }
}

/// How a node is, and since when, unless that is as it should be.
fn state(member: &Member<'_>, now: DateTime<Utc>) -> String {
    match member.since {
        Some(since) if member.status != NodeStatus::Online => {
            format!("{} since {}, {}", member.status, when::date_and_time_utc(since), when::ago(since, now))
        }
        _ => member.status.to_string(),
    }
}

fn with_loss(Candidate { name, would_lose, .. }: &Candidate) -> String {
    match would_lose {
        Some(amount) => format!("{name}, and would lose {amount}"),
        None => name.clone(),
    }
}

fn behind(member: &Member<'_>) -> String {
    let Some(Lag { bytes, seconds, lower_bound, .. }) = member.lag else { return String::new() };
    let at_least = if lower_bound { "at least " } else { "" };
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    format!(", {at_least}{} and {} behind", human_bytes(bytes), human_ms(ms))
}

fn how_it_went(run: &RunNow, status: &Status<'_>) -> String {
    if run.end == RunEnd::Running {
        let steps: Vec<_> = run.steps_running.iter().map(|step| step.name()).collect();
        let at = if steps.is_empty() {
            "between two steps".to_owned()
        } else {
            format!("at {}", steps.join(", "))
        };
        let began = when::ago(run.started_at, status.at);
        return if run.attended {
            format!("running, {at}, begun {began}")
        } else {
            format!("interrupted {at}, begun {began}; its supervisor resumes it when it starts")
        };
    }
    let ended = run.ended_at.map(|at| when::ago(at, status.at)).unwrap_or_default();
    let silence =
        run.without_writes_ms.map(|ms| format!(", {} without writes, {} lost", human_ms(ms), run.loss));
    format!("{} {ended}{}", run.end, silence.unwrap_or_default())
}
