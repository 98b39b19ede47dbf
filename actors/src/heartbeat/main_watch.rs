//! What a supervisor saw of main, and what it says of it.

use chrono::{DateTime, Utc};
use interrex_events::{
    Event, Evidence, FailoverWithheld, Finding, LastReport, Lsn, MainRecovered, MainSeen, MainSuspected,
    NodeId, NodeStatus, PostgresStatus, WithheldRule,
};

use super::decider::Situation;
use crate::{
    env::Moment,
    messages::{MainSight, ProbeEnded},
    report::NodeReport,
};

/// Probes without a good sign before main is suspected: one lost packet is nothing.
pub(super) const SUSPECT_AFTER_MISSES: u32 = 2;

/// What was seen of main.
#[derive(Debug, Clone)]
pub(super) struct MainWatch {
    pub(super) main: NodeId,
    /// From when its silence counts: the last good sign, or the end of a stall, or the begin of the watch.
    pub(super) silent_since: Moment,
    /// When it last gave a good sign at all.
    pub(super) last_good: Option<Moment>,
    /// When it last answered itself, by its PostgreSQL or its supervisor, or when that began to count.
    pub(super) answered: Moment,
    pub(super) missed: u32,
    pub(super) first_miss_at: Option<DateTime<Utc>>,
    pub(super) suspected: bool,
    pub(super) lost: bool,
    pub(super) withheld: Vec<WithheldRule>,
    pub(super) evidence: Evidence,
    pub(super) report: Option<Report>,
    /// Whether it says that it has stopped, and offers its role.
    offers: bool,
}

/// Main's last report of its own log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    pub(super) lsn: Lsn,
    pub(super) at: Moment,
    pub(super) first_at: Moment,
    pub(super) caught_up_at: Option<Moment>,
}

impl MainWatch {
    pub(super) fn new(main: NodeId, situation: Situation<'_>) -> Self {
        let now = situation.now;
        // an actor that was restarted within one life of the supervisor goes by what its predecessor recorded
        let last_good = (situation.standpoint.seen_main == Some(main)).then_some(now);
        let nothing = || Finding::unknown("not asked yet");
        Self {
            main,
            silent_since: now,
            last_good,
            answered: now,
            missed: 0,
            first_miss_at: None,
            suspected: false,
            lost: false,
            withheld: Vec::new(),
            evidence: Evidence {
                supervisor: nothing(),
                postgres: nothing(),
                redis: nothing(),
                wal_receiver: nothing(),
                last_good_at: None,
                missed_probes: 0,
            },
            report: None,
            offers: false,
        }
    }

    pub(super) fn take_probe(
        &mut self,
        situation: Situation<'_>,
        probe: &ProbeEnded,
        receiver: Finding,
        facts: &mut Vec<Event>,
    ) {
        let supervisor = supervisor_finding(probe);
        let postgres = postgres_finding(probe);
        let answered = postgres.is_good() || supervisor.is_good();
        let only_postgres = postgres.is_good() && probe.supervisor.is_err();
        let switching = probe.supervisor.as_ref().is_ok_and(|report| report.hands_over());
        let says_so = |report: &NodeReport| {
            report.status == NodeStatus::HandingOver && report.postgres.status != PostgresStatus::Primary
        };
        self.offers = probe.supervisor.as_ref().is_ok_and(|report| says_so(report));
        let only_supervisor = supervisor.is_good() && !postgres.is_good() && !switching;
        self.evidence = Evidence {
            supervisor,
            postgres,
            redis: redis_finding(probe),
            wal_receiver: receiver,
            last_good_at: self.last_good.map(|at| at.wall),
            missed_probes: self.missed,
        };
        self.take_report(probe);
        if answered {
            self.good_sign(situation, probe, facts);
        } else {
            self.missed += 1;
            self.evidence.missed_probes = self.missed;
            self.first_miss_at = self.first_miss_at.or(Some(probe.began.wall));
            if self.missed == SUSPECT_AFTER_MISSES && self.last_good.is_some() && !self.suspected {
                self.suspected = true;
                let evidence = self.evidence.clone();
                let threshold_ms = situation.timing.threshold_ms;
                facts.push(MainSuspected { main: self.main, evidence, threshold_ms }.into());
            }
        }
        if only_postgres {
            let detail =
                "main's supervisor does not answer, but its PostgreSQL does: clients are served".to_owned();
            facts.extend(self.withhold_once(situation, WithheldRule::PostgresStillAnswers, detail, None));
        } else if only_supervisor {
            let detail = format!(
                "main's PostgreSQL does not answer here ({}), but its supervisor says that it serves: the way there is broken, \
                 not main",
                self.evidence.postgres.detail
            );
            facts.extend(self.withhold_once(situation, WithheldRule::SupervisorVouches, detail, None));
        } else if answered {
            self.withheld.retain(|rule| {
                !matches!(rule, WithheldRule::PostgresStillAnswers | WithheldRule::SupervisorVouches)
            });
        }
    }

    pub(super) fn good_sign(&mut self, situation: Situation<'_>, probe: &ProbeEnded, facts: &mut Vec<Event>) {
        let silent_ms = probe.ended.ms_since(self.answered);
        if self.last_good.is_none() {
            let epoch = situation.cluster.nodes.epoch;
            facts.push(MainSeen { main: self.main, epoch, evidence: self.evidence.clone() }.into());
        } else if self.suspected || self.lost {
            let threshold_ms = situation.timing.threshold_ms;
            let evidence = self.evidence.clone();
            facts.push(MainRecovered { main: self.main, silent_ms, threshold_ms, evidence }.into());
        }
        // an answer that was under way during a stall does not take back what the stall set
        let from =
            if probe.ended.monotonic > self.silent_since.monotonic { probe.ended } else { self.silent_since };
        (self.silent_since, self.answered, self.last_good) = (from, from, Some(probe.ended));
        (self.missed, self.first_miss_at, self.suspected, self.lost) = (0, None, false, false);
        self.withheld.retain(|rule| {
            matches!(rule, WithheldRule::PostgresStillAnswers | WithheldRule::SupervisorVouches)
        });
    }

    /// The end of main's log, by itself or by its supervisor, whichever is further.
    pub(super) fn take_report(&mut self, probe: &ProbeEnded) {
        let direct =
            probe.postgres.as_ref().and_then(|answer| answer.as_ref().ok()).filter(|main| main.writable);
        let told =
            probe.supervisor.as_ref().ok().filter(|report| report.postgres.status == PostgresStatus::Primary);
        let direct = direct.and_then(|main| Some((main.lsn?, probe.began)));
        // what the supervisor says may be old: it goes on saying it for a while when PostgreSQL answers it no more
        let age_ms = |report: &NodeReport| report.postgres_age_ms.unwrap_or(0);
        let told = told.and_then(|report| Some((report.postgres.lsn?, probe.began.before(age_ms(report)))));
        let furthest = direct.into_iter().chain(told).max_by_key(|(lsn, at)| (*lsn, at.monotonic));
        let Some((lsn, at)) = furthest else { return };
        let is_news = |before: Report| before.at.monotonic <= at.monotonic;
        if self.report.is_none_or(is_news) {
            let caught_up_at = self.report.and_then(|report| report.caught_up_at);
            let first_at = self.report.map_or(at, |report| report.first_at);
            self.report = Some(Report { lsn, at, first_at, caught_up_at });
        }
    }

    pub(super) fn sight(&self) -> MainSight {
        MainSight {
            main: self.main,
            silent_since: self.silent_since,
            evidence: self.evidence.clone(),
            last_report: self.last_report(),
            offers: self.offers,
        }
    }

    pub(super) fn last_report(&self) -> Option<LastReport> {
        self.report.map(|report| LastReport {
            lsn: report.lsn,
            first_reported_at: report.first_at.wall,
            reported_at: report.at.wall,
            caught_up_at: report.caught_up_at.map(|at| at.wall),
            first_miss_at: self.first_miss_at,
        })
    }

    pub(super) fn withhold(
        &mut self,
        situation: Situation<'_>,
        rule: WithheldRule,
        detail: String,
        silent_ms: Option<u64>,
    ) -> Event {
        self.withheld.push(rule);
        let evidence = Some(self.evidence.clone());
        let threshold_ms = situation.timing.threshold_ms;
        FailoverWithheld { main: self.main, rule, detail, silent_ms, threshold_ms, evidence }.into()
    }

    /// A rule is recorded once for as long as it goes on: a quiet day stays quiet.
    pub(super) fn withhold_once(
        &mut self,
        situation: Situation<'_>,
        rule: WithheldRule,
        detail: String,
        silent_ms: Option<u64>,
    ) -> Vec<Event> {
        if self.withheld.contains(&rule) {
            return Vec::new();
        }
        vec![self.withhold(situation, rule, detail, silent_ms)]
    }
}

fn supervisor_finding(probe: &ProbeEnded) -> Finding {
    match &probe.supervisor {
        Err(error) => Finding::bad(error.clone()),
        Ok(report) if report.postgres.status == PostgresStatus::Primary => {
            Finding::good("answers, and says that its PostgreSQL serves")
        }
        Ok(report) if report.hands_over() => Finding::good("answers, and hands its role over"),
        Ok(report) => {
            Finding::bad(format!("answers, and says that its PostgreSQL is {}", report.postgres.status))
        }
    }
}

fn postgres_finding(probe: &ProbeEnded) -> Finding {
    match &probe.postgres {
        None => Finding::unknown("not asked"),
        Some(Err(error)) => Finding::bad(error.clone()),
        Some(Ok(main)) if main.writable => Finding::good("answers as a primary"),
        Some(Ok(_)) => Finding::bad("answers, but as a standby"),
    }
}

fn redis_finding(probe: &ProbeEnded) -> Finding {
    match &probe.redis {
        None => Finding::unknown("not asked"),
        Some(Err(error)) => Finding::bad(error.clone()),
        Some(Ok(role)) => Finding::good(format!("answers as {role}")),
    }
}
