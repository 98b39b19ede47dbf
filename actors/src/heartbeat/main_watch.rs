//! What a supervisor observed of main, and what it reports about main.

use chrono::{DateTime, Utc};
use interrex_events::{
    Event, EventId, Evidence, FailoverWithheld, Finding, LastReport, Lsn, MainRecovered, MainSeen,
    MainSuspected, NodeId, NodeStatus, PostgresStatus, WithheldRule,
};

use super::decider::Situation;
use crate::{
    env::Moment,
    messages::{MainSight, ProbeEnded},
    ports::NoReply,
    wire::NodeReport,
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
    /// The verdict whose end was recorded already, and may not be folded yet.
    ended: Option<EventId>,
    /// Whether it says that it has stopped, and offers its role.
    offers: bool,
    /// Whether its supervisor gave no answer of any kind to the last probe.
    supervisor_is_silent: bool,
    /// Why its PostgreSQL admits no new session, from its supervisor's report or its own refusal.
    pub(super) no_session: Option<String>,
}

/// Main's last report of its own WAL position.
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
            // a verdict of its predecessor ends as one of its own
            lost: situation.standpoint.verdict.as_ref().is_some_and(|it| it.lost.main == main),
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
            ended: None,
            offers: false,
            supervisor_is_silent: false,
            no_session: None,
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
        let refused = match &probe.postgres {
            Some(Err(refusal @ NoReply::Refused { .. })) => Some(refusal.to_string()),
            _ => None,
        };
        let said = probe.supervisor.as_ref().ok().and_then(|report| report.no_session.clone());
        self.no_session = said.or(refused);
        self.supervisor_is_silent = matches!(probe.supervisor, Err(NoReply::Silent(_)));
        // what was not asked yet says nothing of the way there
        let only_supervisor =
            supervisor.is_good() && probe.postgres.is_some() && !postgres.is_good() && !switching;
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
        } else if let Some(own_trouble) = own_trouble(probe) {
            facts.extend(self.could_not_ask(situation, own_trouble));
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
            let detail = match &probe.postgres {
                Some(Err(refusal)) => format!(
                    "main's supervisor does not answer, but its PostgreSQL answers with an error: main is alive, whether it serves \
                     or not ({refusal})"
                ),
                _ => "main's supervisor does not answer, but its PostgreSQL does: clients are served"
                    .to_owned(),
            };
            facts.extend(self.withhold_once(situation, WithheldRule::PostgresStillAnswers, detail, None));
        } else if only_supervisor {
            let detail = format!(
                "main's PostgreSQL does not answer this node ({}), but its supervisor reports that it serves: the network between \
                 the two is broken, not main",
                self.evidence.postgres.detail
            );
            facts.extend(self.withhold_once(situation, WithheldRule::SupervisorVouches, detail, None));
        } else if answered {
            self.withheld.retain(|rule| {
                !matches!(rule, WithheldRule::PostgresStillAnswers | WithheldRule::SupervisorVouches)
            });
        }
    }

    /// A shortage on this node is no evidence against main: the silence of that time is this node's own, as after a stall.
    fn could_not_ask(&mut self, situation: Situation<'_>, own_trouble: &NoReply) -> Vec<Event> {
        let silent_ms = situation.now.ms_since(self.silent_since);
        (self.silent_since, self.answered, self.missed) = (situation.now, situation.now, 0);
        let detail = format!(
            "{own_trouble}; nothing is known of main meanwhile, and its silence is measured again from zero"
        );
        self.withhold_once(situation, WithheldRule::OwnTrouble, detail, Some(silent_ms))
    }

    /// Whether a verdict against it stands, by this watch or by the journal.
    pub(super) fn is_lost(&self, situation: Situation<'_>) -> bool {
        let verdict = situation.standpoint.verdict.as_ref().filter(|it| it.lost.main == self.main);
        self.lost || verdict.is_some_and(|it| Some(it.lineage.causation_id) != self.ended)
    }

    /// A good sign ends whatever was held against it.
    pub(super) fn recovered(&mut self, situation: Situation<'_>, silent_ms: u64) -> Event {
        self.lost = false;
        self.ended = situation.standpoint.verdict.as_ref().map(|it| it.lineage.causation_id);
        let (threshold_ms, evidence) = (situation.timing.threshold_ms, self.evidence.clone());
        MainRecovered { main: self.main, silent_ms, threshold_ms, evidence }.into()
    }

    pub(super) fn good_sign(&mut self, situation: Situation<'_>, probe: &ProbeEnded, facts: &mut Vec<Event>) {
        let silent_ms = probe.ended.ms_since(self.answered);
        if self.last_good.is_none() {
            let epoch = situation.cluster.nodes.epoch;
            facts.push(MainSeen { main: self.main, epoch, evidence: self.evidence.clone() }.into());
        } else if self.suspected || self.is_lost(situation) {
            facts.push(self.recovered(situation, silent_ms));
        }
        let made = sign_made_at(probe);
        // an answer that was under way during a stall does not take back what the stall set
        let from = if made.monotonic > self.silent_since.monotonic { made } else { self.silent_since };
        (self.silent_since, self.answered, self.last_good) = (from, from, Some(made));
        (self.missed, self.first_miss_at, self.suspected, self.lost) = (0, None, false, false);
        self.withheld.retain(|rule| {
            matches!(rule, WithheldRule::PostgresStillAnswers | WithheldRule::SupervisorVouches)
        });
    }

    /// The end of main's WAL, from its PostgreSQL or its supervisor, whichever is further.
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
            supervisor_is_silent: self.supervisor_is_silent,
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

/// When the sign was made that this probe brought: what a supervisor says of its PostgreSQL is as old as its measurement.
fn sign_made_at(probe: &ProbeEnded) -> Moment {
    let by_itself = postgres_finding(probe).is_good();
    match &probe.supervisor {
        Ok(report) if !by_itself && !report.hands_over() => {
            probe.ended.before(report.postgres_age_ms.unwrap_or(0))
        }
        _ => probe.ended,
    }
}

/// What kept this node from asking, if anything did.
fn own_trouble(probe: &ProbeEnded) -> Option<&NoReply> {
    let supervisor = probe.supervisor.as_ref().err();
    let postgres = probe.postgres.as_ref().and_then(|answer| answer.as_ref().err());
    supervisor.into_iter().chain(postgres).find(|error| error.is_unknown())
}

/// Of a server that gave nothing that speaks for main.
fn against(reply: &NoReply) -> Finding {
    if reply.is_unknown() { Finding::unknown(reply.to_string()) } else { Finding::bad(reply.to_string()) }
}

fn supervisor_finding(probe: &ProbeEnded) -> Finding {
    match &probe.supervisor {
        // it lives, and does not say what its PostgreSQL does
        Err(refusal @ NoReply::Refused { .. }) => {
            Finding::unknown(format!("answers with an error: {refusal}"))
        }
        Err(error) => against(error),
        Ok(report) if report.postgres.status == PostgresStatus::Primary => {
            Finding::good("answers, and reports that its PostgreSQL serves")
        }
        Ok(report) if report.hands_over() => Finding::good("answers, and hands its role over"),
        Ok(report) => {
            Finding::bad(format!("answers, and reports that its PostgreSQL is {}", report.postgres.status))
        }
    }
}

fn postgres_finding(probe: &ProbeEnded) -> Finding {
    match &probe.postgres {
        None => Finding::unknown("not asked"),
        Some(Err(refusal @ NoReply::Refused { .. })) => {
            Finding::good(format!("is alive: it answers with an error ({refusal})"))
        }
        Some(Err(error)) => against(error),
        Some(Ok(main)) if main.writable => Finding::good("answers as a primary"),
        Some(Ok(_)) => Finding::bad("answers, but as a standby"),
    }
}

fn redis_finding(probe: &ProbeEnded) -> Finding {
    match &probe.redis {
        None => Finding::unknown("not asked"),
        Some(Err(refusal @ NoReply::Refused { .. })) => {
            Finding::good(format!("is alive: it answers with an error ({refusal})"))
        }
        Some(Err(error)) => against(error),
        Some(Ok(role)) => Finding::good(format!("answers as {role}")),
    }
}
