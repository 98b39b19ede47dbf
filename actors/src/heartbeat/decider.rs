//! Decides when main is lost: a pure state machine over probes, measurements and ticks.
//!
//! Silence is measured on the monotonic clock from the last good sign. A good sign is an answer of main's PostgreSQL as a
//! primary, a report of main's supervisor that it serves, or new WAL from main; one of them is enough. There is no verdict
//! without a good sign since this supervisor started (MEASURED M19), none from time in which this supervisor itself did not run
//! (MEASURED M20), and none without two failed probes.

use std::{collections::BTreeMap, time::Duration};

use interrex_events::{
    ClockJumped, Draft, Epoch, Event, Finding, HeartbeatsObserved, LearnedBy, MainLost, NodeId,
    PeerReachable, PeerUnreachable, SettingsAdopted, SettingsStamp, SupervisorStalled, WithheldRule,
};
use interrex_projections::{Cluster, Standpoint, human_ms};

use super::{
    claims::{self, Known},
    main_watch::{MainWatch, SUSPECT_AFTER_MISSES},
    peer_watch::PeerWatch,
};
use crate::{
    env::{Moment, ms},
    messages::{Claim, MainSight, Measured, ProbeEnded, SettingsHeard},
    ports::NoReply,
    wire::Lag,
};

/// Probes without an answer before a peer that is not main counts as unreachable.
const UNREACHABLE_AFTER_MISSES: u32 = 3;
/// How long a heartbeat window is.
const WINDOW: Duration = Duration::from_secs(300);
/// Misses that one window lists; it is closed early when it is full, so that none is left out.
const WINDOW_MISSES_LIMIT: usize = 256;
/// The least gap between two ticks that is taken for a stall.
const STALL_FLOOR: Duration = Duration::from_secs(1);
/// The largest step of the wall clock between two ticks that is taken for slewing.
pub const CLOCK_STEP_LIMIT_MS: u64 = 1_000;

/// Thresholds that can be asked for at all, in milliseconds; the `UPDATE` refuses more than these bounds say.
const THRESHOLDS_MS: std::ops::RangeInclusive<u64> = 40..=86_400_000;

/// What does not change.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often peers are probed.
    pub probe_interval: Duration,
    /// When one probe is given up.
    pub probe_timeout: Duration,
    /// How long main may be silent.
    pub threshold_ms: u64,
}

impl Timing {
    fn stall_tolerance(&self) -> Duration {
        STALL_FLOOR.max(3 * self.probe_interval)
    }

    /// How old the last message to the WAL receiver may be to count as a sign of main.
    fn receiver_freshness(&self) -> Duration {
        self.probe_interval + self.probe_timeout
    }
}

/// What a decision is made from, in addition to the watch itself.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// This node.
    pub me: NodeId,
    /// The fold of the journal.
    pub cluster: &'a Cluster,
    /// What this node has observed since it started, as far as it is recorded.
    pub standpoint: &'a Standpoint,
    /// The newest epoch that each node opened, from the copies of their journals on this node.
    pub opened: &'a BTreeMap<NodeId, Epoch>,
    /// Intervals and limits.
    pub timing: &'a Timing,
    /// Now.
    pub now: Moment,
}

impl Situation<'_> {
    fn known(&self) -> Known<'_> {
        Known { me: self.me, nodes: &self.cluster.nodes, opened: self.opened }
    }
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time passed.
    Tick,
    /// A probe ended.
    ProbeEnded(Box<ProbeEnded>),
    /// The local servers were measured.
    Measured(Box<Measured>),
    /// A claim about main arrived.
    Claim(Claim),
    /// A peer reported changed settings.
    SettingsHeard(SettingsHeard),
}

/// Everything this supervisor saw since it started. It is not in the journal: a new supervisor judges by what
/// it sees itself.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    last_input: Option<Moment>,
    main: Option<MainWatch>,
    peers: BTreeMap<NodeId, PeerWatch>,
    measured: Option<Measured>,
    /// The newest claim that was taken up and may not be folded yet.
    believed: Option<(Epoch, NodeId)>,
    /// The newest change of settings that was taken up and may not be folded yet.
    adopted: SettingsStamp,
}

/// The result of a decision.
#[derive(Debug, Default)]
pub struct Judgement {
    /// The facts to store.
    pub facts: Vec<Draft>,
    /// How far this node is behind main.
    pub lag: Option<Lag>,
    /// What is seen of main.
    pub sight: Option<MainSight>,
    /// Why main's PostgreSQL admits no new session, from its supervisor's report or its own refusal.
    pub no_session: Option<String>,
}

impl Watch {
    /// Handles an input and returns what follows from it.
    pub fn decide(&mut self, situation: Situation<'_>, input: Input) -> Judgement {
        self.turn_to_main(situation);
        let mut facts = self.notice_own_stall(situation);
        facts.extend(match input {
            Input::Tick => self.close_old_windows(situation.now),
            Input::ProbeEnded(probe) => self.probe_ended(situation, &probe),
            Input::Measured(measured) => self.take_measure(situation, *measured),
            // taken up before, and not folded yet
            Input::Claim(claim) if claim.epoch >= situation.cluster.nodes.epoch && !self.is_news(&claim) => {
                Vec::new()
            }
            Input::Claim(claim) => claims::fact(situation.known(), &claim).into_iter().collect(),
            Input::SettingsHeard(heard) => self.adopt(situation, heard),
        });
        for fact in &facts {
            if let Event::MainAnnounced(announced) = fact {
                self.believed = Some((announced.epoch, announced.main));
            }
        }
        let epoch = situation.cluster.nodes.epoch;
        Judgement {
            facts: facts.into_iter().map(|event| Draft::new(epoch, event)).collect(),
            lag: self.lag(situation),
            sight: self.main.as_ref().map(MainWatch::sight),
            no_session: self.main.as_ref().and_then(|main| main.no_session.clone()),
        }
    }

    /// Main's newest change wins; older ones are heard of again and again.
    fn adopt(&mut self, situation: Situation<'_>, heard: SettingsHeard) -> Vec<Event> {
        let SettingsHeard { from, settings, stamp } = heard;
        let nodes = &situation.cluster.nodes;
        // only main changes them; what it cannot have accepted is not believed of it either
        let is_mains = nodes.is_main(from) && stamp.epoch <= nodes.epoch;
        let is_new = stamp > situation.cluster.settings.stamp.max(self.adopted);
        let makes_sense = THRESHOLDS_MS.contains(&settings.auto_failover_threshold_ms);
        if !is_mains || !is_new || !makes_sense {
            return Vec::new();
        }
        self.adopted = stamp;
        vec![SettingsAdopted { settings, stamp, learned_from: from }.into()]
    }

    /// Whether a claim says more than what was taken up and may not be folded yet.
    fn is_news(&self, claim: &Claim) -> bool {
        self.believed
            .is_none_or(|(epoch, main)| claim.epoch > epoch || (claim.epoch == epoch && claim.main != main))
    }

    /// How long to wait for the next probes: a suspected main is asked once more just when its time is up.
    #[must_use]
    pub fn until_next_probe(&self, timing: &Timing, now: Moment) -> Duration {
        let suspected = self.main.as_ref().filter(|main| main.suspected && !main.lost);
        let left_ms =
            suspected.map(|main| timing.threshold_ms.saturating_sub(now.ms_since(main.silent_since)));
        let left = left_ms.filter(|left| *left > 0).map(Duration::from_millis);
        left.map_or(timing.probe_interval, |left| left.min(timing.probe_interval))
    }

    /// The heartbeat windows that are still open, for a supervisor that ends.
    pub fn close_windows(&mut self, now: Moment) -> Vec<Event> {
        let peers: Vec<NodeId> = self.peers.keys().copied().collect();
        peers.into_iter().filter_map(|peer| self.close_window(peer, now)).collect()
    }

    /// Watches the current main; a new main is watched from the start.
    fn turn_to_main(&mut self, situation: Situation<'_>) {
        let main = situation.cluster.nodes.main.filter(|main| *main != situation.me);
        if main != self.main.as_ref().map(|watch| watch.main) {
            self.main = main.map(|main| MainWatch::new(main, situation));
        }
    }

    // ---- this supervisor's own health ----------------------------------------------------------------------

    /// Before anything is judged: did this supervisor run all the time, and did the wall clock?
    fn notice_own_stall(&mut self, situation: Situation<'_>) -> Vec<Event> {
        let now = situation.now;
        let Some(last) = self.last_input.replace(now) else { return Vec::new() };
        let mut facts = Vec::new();
        let gap = now.monotonic.saturating_sub(last.monotonic);
        let tolerance = situation.timing.probe_interval + situation.timing.stall_tolerance();
        if gap > tolerance {
            facts.extend(self.stalled(situation, gap, tolerance));
        }
        let wall_ms = (now.wall - last.wall).num_milliseconds();
        let step_ms = wall_ms - i64::try_from(ms(gap)).unwrap_or(i64::MAX);
        if step_ms.unsigned_abs() > CLOCK_STEP_LIMIT_MS {
            facts.extend(self.clock_jumped(situation, step_ms));
        }
        facts
    }

    fn close_old_windows(&mut self, now: Moment) -> Vec<Event> {
        let old = |peer: &PeerWatch| now.monotonic.saturating_sub(peer.window_since.monotonic) >= WINDOW;
        let over: Vec<NodeId> = self.peers.iter().filter(|(_, peer)| old(peer)).map(|(id, _)| *id).collect();
        over.into_iter().filter_map(|peer| self.close_window(peer, now)).collect()
    }

    /// The silence of this time may be one's own: it does not count against main.
    fn stalled(&mut self, situation: Situation<'_>, gap: Duration, tolerance: Duration) -> Vec<Event> {
        let stalled = SupervisorStalled { stalled_ms: ms(gap), tolerance_ms: ms(tolerance) };
        let mut facts = vec![stalled.into()];
        if let Some(main) = &mut self.main {
            let silent_ms = situation.now.ms_since(main.silent_since);
            (main.silent_since, main.answered, main.missed, main.lost) =
                (situation.now, situation.now, 0, false);
            if silent_ms >= situation.timing.threshold_ms {
                let detail = format!(
                    "main gave no answer for {}, but this supervisor itself did not run for {} of that time; the silence is \
                     measured again from zero",
                    human_ms(silent_ms),
                    human_ms(ms(gap))
                );
                facts.push(main.withhold(situation, WithheldRule::OwnStall, detail, Some(silent_ms)));
                main.withheld.clear();
            }
        }
        facts
    }

    fn clock_jumped(&mut self, situation: Situation<'_>, step_ms: i64) -> Vec<Event> {
        let mut facts = vec![ClockJumped { step_ms, tolerance_ms: CLOCK_STEP_LIMIT_MS }.into()];
        let threshold_ms = situation.timing.threshold_ms;
        if let Some(main) = &mut self.main
            && step_ms.unsigned_abs() >= threshold_ms
        {
            let silent_ms = situation.now.ms_since(main.silent_since);
            let detail = format!(
                "by the wall clock main would have been silent for {} more; by the monotonic clock it is {}",
                human_ms(step_ms.unsigned_abs()),
                human_ms(silent_ms)
            );
            facts.push(main.withhold(situation, WithheldRule::ClockJump, detail, Some(silent_ms)));
            main.withheld.retain(|rule| *rule != WithheldRule::ClockJump);
        }
        facts
    }

    // ---- probes --------------------------------------------------------------------------------------------

    fn probe_ended(&mut self, situation: Situation<'_>, probe: &ProbeEnded) -> Vec<Event> {
        let mut facts = self.note_probe(situation, probe);
        if let Ok(report) = &probe.supervisor {
            let claim = Claim::of(report, LearnedBy::Heartbeat).filter(|claim| self.is_news(claim));
            facts.extend(claim.and_then(|claim| claims::fact(situation.known(), &claim)));
        }
        let receiver = self.receiver_finding(situation);
        let Some(main) = self.main.as_mut().filter(|main| main.main == probe.peer) else { return facts };
        main.take_probe(situation, probe, receiver, &mut facts);
        // only a probe that just failed can bring the verdict, never the mere passing of time
        facts.extend(self.judge_main(situation));
        facts
    }

    /// The window of one peer, and whether it can be reached at all.
    fn note_probe(&mut self, situation: Situation<'_>, probe: &ProbeEnded) -> Vec<Event> {
        // what this node could not ask says nothing of the peer
        if probe.supervisor.as_ref().is_err_and(NoReply::is_unknown) {
            return Vec::new();
        }
        let is_main = self.main.as_ref().is_some_and(|main| main.main == probe.peer);
        let peer = self.peers.entry(probe.peer).or_insert_with(|| PeerWatch::new(probe.began));
        let answered = matches!(probe.supervisor, Ok(_) | Err(NoReply::Refused { .. }));
        peer.note(probe, answered);
        let mut facts = Vec::new();
        // the verdicts on main show main's reachability
        if answered && peer.reachable != Some(true) {
            let silent_ms = peer.last_answer.map(|at| probe.ended.ms_since(at));
            peer.reachable = Some(true);
            if !is_main {
                facts.push(PeerReachable { peer: probe.peer, silent_ms }.into());
            }
        } else if let Err(detail) = &probe.supervisor
            && peer.misses >= UNREACHABLE_AFTER_MISSES
            && peer.reachable != Some(false)
        {
            peer.reachable = Some(false);
            if !is_main {
                facts.push(PeerUnreachable { peer: probe.peer, detail: detail.to_string() }.into());
            }
        }
        if answered {
            peer.last_answer = Some(probe.ended);
        }
        if peer.missed_at_ms.len() >= WINDOW_MISSES_LIMIT {
            facts.extend(self.close_window(probe.peer, situation.now));
        }
        facts
    }

    fn close_window(&mut self, id: NodeId, now: Moment) -> Option<Event> {
        let peer = self.peers.get_mut(&id)?;
        let window = HeartbeatsObserved {
            peer: id,
            since: peer.window_since.wall,
            window_ms: now.ms_since(peer.window_since),
            answered: std::mem::take(&mut peer.answered),
            round_trips: std::mem::take(&mut peer.round_trips),
            missed_at_ms: std::mem::take(&mut peer.missed_at_ms),
        };
        peer.window_since = now;
        (window.answered > 0 || !window.missed_at_ms.is_empty()).then(|| window.into())
    }

    fn receiver_finding(&self, situation: Situation<'_>) -> Finding {
        let Some(measured) = &self.measured else { return Finding::unknown("not measured yet") };
        let Some(heard) = measured.receiver_heard else {
            return Finding::bad(format!("no WAL is received (PostgreSQL {})", measured.postgres.status));
        };
        let age = heard + situation.now.monotonic.saturating_sub(measured.at.monotonic);
        let text = format!("last heard from main {} ago", human_ms(ms(age)));
        if age <= situation.timing.receiver_freshness() {
            Finding::good(text)
        } else {
            Finding::unknown(text)
        }
    }

    // ---- lag -----------------------------------------------------------------------------------------------

    fn take_measure(&mut self, situation: Situation<'_>, measured: Measured) -> Vec<Event> {
        if let Some(report) = self.main.as_mut().and_then(|main| main.report.as_mut())
            && measured.postgres.lsn.is_some_and(|own| own >= report.lsn)
        {
            // what main has written after it had reported this is not known to be here
            report.caught_up_at = Some(report.at);
        }
        let sent = measured.receiver_heard.map(|heard| measured.at.before(ms(heard)));
        self.measured = Some(measured);
        let receiver = self.receiver_finding(situation);
        if let Some(main) = &mut self.main {
            // WAL that arrives from main is a sign of it, whatever became of the probes
            let speaks = receiver.is_good() && main.last_good.is_some();
            main.evidence.wal_receiver = receiver;
            // it counts from when main sent it, not from when it was looked at
            if let Some(sent) = sent.filter(|sent| speaks && sent.monotonic > main.silent_since.monotonic) {
                let silent_ms = situation.now.ms_since(main.silent_since);
                (main.silent_since, main.last_good) = (sent, Some(sent));
                if main.is_lost(situation) {
                    return vec![main.recovered(situation, silent_ms)];
                }
            }
        }
        Vec::new()
    }

    fn lag(&self, situation: Situation<'_>) -> Option<Lag> {
        let main = self.main.as_ref()?;
        let report = main.report?;
        let own = self.measured.as_ref()?.postgres.lsn?;
        let since = report.caught_up_at.unwrap_or(report.first_at);
        let bytes = report.lsn.bytes_ahead_of(own);
        let behind_ms = if bytes == 0 && main.missed == 0 { 0 } else { situation.now.ms_since(since) };
        let lower_bound = main.missed > 0 || (bytes > 0 && report.caught_up_at.is_none());
        Some(Lag { bytes, seconds: seconds(behind_ms), lower_bound, main_lsn: report.lsn })
    }

    // ---- the verdict ---------------------------------------------------------------------------------------

    fn judge_main(&mut self, situation: Situation<'_>) -> Vec<Event> {
        let Some(main) = &mut self.main else { return Vec::new() };
        if situation.cluster.nodes.is_superseded(situation.me) {
            return Vec::new();
        }
        let threshold_ms = situation.timing.threshold_ms;
        let silent_ms = situation.now.ms_since(main.silent_since);
        let unanswered_ms = situation.now.ms_since(main.answered);
        if main.missed < SUSPECT_AFTER_MISSES || main.lost {
            return Vec::new();
        }
        if main.last_good.is_none() {
            if silent_ms < threshold_ms {
                return Vec::new();
            }
            let detail = "main has not been seen since this supervisor started: main may never have run, or this node may be cut \
                          off. If main is really gone: interrex promote"
                .to_owned();
            return main.withhold_once(
                situation,
                WithheldRule::MainNeverSeenSinceBoot,
                detail,
                Some(silent_ms),
            );
        }
        if silent_ms >= threshold_ms {
            main.lost = true;
            let lost = MainLost {
                main: main.main,
                silent_ms,
                threshold_ms,
                evidence: main.evidence.clone(),
                last_report: main.last_report(),
            };
            return vec![lost.into()];
        }
        if unanswered_ms >= threshold_ms && main.evidence.wal_receiver.is_good() {
            let detail = format!(
                "main has not answered for {}, but its WAL still arrives on this node: main is alive",
                human_ms(unanswered_ms)
            );
            return main.withhold_once(
                situation,
                WithheldRule::WalStillStreaming,
                detail,
                Some(unanswered_ms),
            );
        }
        Vec::new()
    }
}

fn seconds(ms: u64) -> f64 {
    Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
#[path = "decider_tests.rs"]
mod tests;
