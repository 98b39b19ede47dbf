//! One node with a decider alone: its fold, its clock, and the facts that it stated.

use super::*;

/// One node's fold, its clock, and the facts it stated.
pub(super) struct Node {
    pub(super) me: NodeId,
    pub(super) belief: Belief,
    /// What it sees of main.
    pub(super) sight: Option<MainSight>,
    pub(super) policy: FailoverPolicy,
    pub(super) candidates: std::collections::BTreeMap<NodeId, Option<NodeId>>,
    pub(super) now: Moment,
    pub(super) sequence: u64,
    pub(super) stated: Vec<Event>,
    /// Everything it stored: what a new supervisor begins from.
    pub(super) journal: Vec<Envelope>,
    /// The id that a run begun now would get.
    pub(super) fresh_run: RunId,
}

/// What a step observes where it succeeds.
pub(super) fn found_by(step: StepId) -> Observed {
    let (timeline, switchpoint) = (TimelineId(2), Lsn(0x0300_0060));
    match step {
        StepId::Promote => Promoted { timeline, switchpoint }.into(),
        StepId::ProveHandover => HandoverProved {
            system_id: "7312345678901234567".to_owned(),
            timeline: TimelineId(1),
            checkpoint: Lsn(0x0300_0028),
            end: switchpoint,
            received: switchpoint,
            head: anchor(MAIN),
        }
        .into(),
        StepId::HandOver => RoleTaken { timeline, switchpoint: Some(switchpoint), head: anchor(ME) }.into(),
        StepId::Rebuild => Rebuilt { by: Demotion::Unchanged, kept: None }.into(),
        _ => Observed::Nothing,
    }
}

impl Node {
    /// A node that has stored nothing yet.
    pub(super) fn empty(me: NodeId) -> Self {
        Self {
            me,
            belief: Belief::default(),
            sight: None,
            policy: test_values::policy(),
            candidates: std::collections::BTreeMap::new(),
            now: Moment {
                monotonic: std::time::Duration::from_secs(100),
                wall: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            },
            sequence: 0,
            stated: Vec::new(),
            journal: Vec::new(),
            fresh_run: RUN,
        }
    }

    /// A secondary whose standby streams.
    pub(super) fn secondary() -> Self {
        let mut node = Self::empty(ME);
        node.store(
            SupervisorStarted {
                name: "beta".to_owned(),
                version: String::new(),
                pid: 1,
                role: Role::Secondary,
                nodes: vec![test_values::spec(MAIN, "alpha"), test_values::spec(ME, "beta")],
                main: Some(MAIN),
                interrupted_run: None,
                settings: serde_json::Map::new(),
            }
            .into(),
            None,
        );
        let streaming = PostgresChanged {
            status: PostgresStatus::Streaming,
            timeline: None,
            lsn: None,
            detail: String::new(),
        };
        node.store(streaming.into(), None);
        node
    }

    pub(super) fn store(&mut self, event: Event, run_id: Option<RunId>) {
        self.store_as(Cause::System, event, run_id);
    }

    pub(super) fn store_as(&mut self, actor: Cause, event: Event, run_id: Option<RunId>) {
        self.sequence += 1;
        let event_id = EventId(Uuid::from_u128(self.sequence.into()));
        let envelope = Envelope {
            event_id,
            cluster_id: ClusterId(Uuid::nil()),
            node_id: self.me,
            node_seq: NodeSeq(self.sequence),
            epoch: self.belief.cluster.nodes.epoch.max(Epoch(1)),
            learned_in: self.belief.cluster.nodes.epoch.max(Epoch(1)),
            hlc: Hlc::from_wall_ms(self.now.wall.timestamp_millis()),
            recorded_at: self.now.wall,
            run_id,
            correlation_id: event_id,
            causation_id: None,
            actor,
            event,
        };
        self.belief.cluster.apply(&envelope);
        self.belief.standpoint.apply(&envelope);
        self.journal.push(envelope);
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now.monotonic += std::time::Duration::from_millis(ms.unsigned_abs());
        self.now.wall += TimeDelta::milliseconds(ms);
    }

    /// Decides, and stores what follows. The facts.
    pub(super) fn when(&mut self, input: &Input) -> Vec<Event> {
        let drafts = decide(self.situation(), input);
        self.state(drafts)
    }

    pub(super) fn situation(&self) -> Situation<'_> {
        Situation {
            me: self.me,
            cluster: &self.belief.cluster,
            standpoint: &self.belief.standpoint,
            policy: &self.policy,
            candidates: &self.candidates,
            sight: self.sight.as_ref(),
            resting: Deadlines::begin(&self.belief.standpoint.rests, &self.policy, self.now).left(self.now),
            now: self.now,
            fresh_run: self.fresh_run,
        }
    }

    pub(super) fn state(&mut self, drafts: Vec<Draft>) -> Vec<Event> {
        let events: Vec<Event> = drafts.iter().map(|draft| draft.event.clone()).collect();
        for draft in drafts {
            self.store_as(draft.actor, draft.event, draft.run_id);
        }
        self.stated.extend(events.clone());
        events
    }

    pub(super) fn main_is_lost(&mut self) {
        let lost = MainLost {
            main: MAIN,
            silent_ms: 5_000,
            threshold_ms: 5_000,
            evidence: test_values::no_answer(),
            last_report: None,
        };
        self.sees(&lost);
        self.store(lost.into(), None);
    }

    /// What is seen of main bears the verdict out.
    pub(super) fn sees(&mut self, lost: &MainLost) {
        self.sight = Some(MainSight {
            main: lost.main,
            silent_since: self.now.before(lost.silent_ms),
            evidence: lost.evidence.clone(),
            last_report: None,
            offers: false,
            supervisor_is_silent: true,
        });
    }

    pub(super) fn run(&self) -> &Run {
        self.belief.cluster.runs.get(RUN).unwrap()
    }

    /// The steps whose outcome is awaited.
    pub(super) fn running(&self) -> BTreeSet<StepId> {
        self.run().steps.iter().filter(|(_, step)| step.is_running()).map(|(id, _)| *id).collect()
    }

    pub(super) fn end(&mut self, step: StepId, outcome: StepOutcome) -> Vec<Event> {
        let mut report = StepReport::new(outcome, format!("{step} {outcome}"));
        if outcome.is_success() {
            report.observed = found_by(step);
        }
        if step == StepId::BecomeStandby && outcome.is_success() {
            // the ReplicationActor records it on the way
            let demoted = NodeDemoted { main: ME, epoch: Epoch(2), by: Demotion::Unchanged };
            self.store(demoted.into(), Some(RUN));
        }
        let attempt = self.run().step(step).attempts;
        self.pass(10);
        self.when(&Input::StepEnded(StepEnded { run: RUN, step, attempt, report, took_ms: 10 }))
    }

    /// Ends every step that is running, and those that follow, with success, but for what `outcome` says.
    pub(super) fn go_on(&mut self, outcome: impl Fn(StepId, u32) -> StepOutcome) {
        for _ in 0..1_000 {
            let Some(step) = self.running().into_iter().next() else { return };
            let attempt = self.run().step(step).attempts;
            self.end(step, outcome(step, attempt));
            self.undo_all();
        }
        panic!("the run does not end: {:?}", self.running());
    }

    /// Ends step after step with success, until this one is running.
    pub(super) fn go_on_until(&mut self, wanted: StepId) {
        while !self.running().contains(&wanted) {
            let step = *self.running().first().unwrap();
            self.end(step, StepOutcome::Succeeded);
        }
    }

    pub(super) fn undo_all(&mut self) {
        let asked =
            |run: &Run| run.steps.iter().find(|(_, step)| step.undo == Undo::Running).map(|(id, _)| *id);
        while let Some(step) = asked(self.run()) {
            let detail = "taken back".to_owned();
            self.when(&Input::UndoEnded(UndoEnded { run: RUN, step, undone: true, detail }));
        }
    }

    pub(super) fn failing_over() -> Self {
        let mut node = Self::secondary();
        node.main_is_lost();
        node.when(&Input::Looked);
        node
    }

    pub(super) fn withheld(&self) -> Vec<WithheldRule> {
        let rule = |event: &Event| match event {
            Event::FailoverWithheld(withheld) => Some(withheld.rule),
            _ => None,
        };
        self.stated.iter().filter_map(rule).collect()
    }
}
