//! `Generation`: the parts of the gateway that a configuration decides, and that a reload replaces as a whole.
//!
//! What a new generation shares with the one before (connections to an unchanged server, usage of rates, memory, mail in
//! progress) is handed on, so that nothing is dropped and no limit is exceeded.

use super::StartError;
use super::admin::GatewayMetrics;
use super::listeners::{self, ListenerIntake};
use super::rates::GatewayRates;
use super::storage::{InUse, MemoryPlan, Retention};
use super::upstreams::{SandboxAccess, Upstreams};
use crate::config::{DeliveryMode, ListenerSettings, Settings};
use crate::control::CurrentRules;
use crate::delivery::{Bouncer, Delivery, DeliveryPlan, Routes, SettlementPolicy};
use crate::dkim::Keyring;
use crate::inbound::users::Users;
use crate::inbound::{ListenerOptions, ListenerRole};
use crate::intake::{
    DirectIntake, InProgress, IntakePipeline, Leftovers, NoticeWriter, QueuedIntake, SilenceWatch, StormWatch,
};
use crate::message::MemoryBudget;
use crate::observe::Clock;
use crate::observe::long_work::in_place;
use crate::queue::Backend;
use crate::smtp::{Mailbox, ReversePath};
use std::any::Any;
use std::sync::{Arc, Weak};
use tokio_util::sync::CancellationToken;

/// What all generations share.
#[derive(Debug)]
pub(super) struct Foundation {
    pub queue: Arc<dyn Backend>,
    /// For messages that come in.
    pub inbound: MemoryBudget,
    /// For copies that are made just before sending.
    pub conversions: MemoryBudget,
    pub metrics: GatewayMetrics,
    pub in_progress: InProgress,
    /// Cancels waits for providers when the drain time is over.
    pub cut_off: CancellationToken,
}

#[derive(Debug)]
pub(super) struct Generation {
    /// Without the DKIM keys, which are in `keyring`.
    pub settings: Settings,
    pub keyring: Arc<Keyring>,
    pub routes: Arc<Routes>,
    pub upstreams: Upstreams,
    pub plan: Arc<DeliveryPlan<Delivery>>,
    pub leftovers: Leftovers,
    pub rates: GatewayRates,
    pub storms: Option<StormWatch>,
    pub expected: SilenceWatch,
    pub users: Users,
    /// In the order of the configuration.
    pub roles: Vec<Arc<ListenerRole<ListenerIntake>>>,
}

impl Foundation {
    pub fn new(queue: Arc<dyn Backend>, memory: MemoryPlan, metrics: GatewayMetrics) -> Self {
        Self {
            queue,
            inbound: MemoryBudget::new(memory.inbound),
            conversions: MemoryBudget::new(memory.conversions),
            metrics,
            in_progress: InProgress::default(),
            cut_off: CancellationToken::new(),
        }
    }
}

impl Generation {
    /// Changes nothing of `former`, which goes on if this fails.
    pub async fn build(
        settings: Settings,
        keyring: Arc<Keyring>,
        sandbox: Option<&SandboxAccess>,
        foundation: &Foundation,
        former: Option<&Self>,
    ) -> Result<Self, StartError> {
        let queue = &foundation.queue;
        let routes = Arc::new(super::routes(&settings));
        let upstreams =
            Upstreams::build(&settings, sandbox, queue.clone(), former.map(|it| (&it.upstreams, &it.settings))).await?;
        let rates =
            GatewayRates::restore(&settings, queue.clone(), former.map(|former| (&former.rates, &former.settings)))
                .await?;
        let unsigned = settings.unsigned.clone();
        let targets = upstreams.targets.clone();
        let conversions = foundation.conversions.clone();
        let metrics = foundation.metrics.delivery(&settings);
        let delivery = Delivery::new(targets, routes.clone(), keyring.clone(), unsigned, conversions, metrics.clone());
        let delivery = Arc::new(delivery);
        let schedule = settings.queue.schedule;
        let settlement = SettlementPolicy { schedule, routes: routes.clone(), clock: Clock::System };
        let bouncer = Arc::new(bouncer(&settings, &settlement, queue));
        let leftovers = match former {
            Some(former) => former.leftovers.under(settlement.clone(), bouncer.clone()),
            None => Leftovers::new(queue.clone(), settlement.clone(), bouncer.clone()),
        };
        let counted = former.and_then(|former| former.storms.as_ref());
        let storms = settings.storm.map(|options| StormWatch::new(options, counted));
        let expected = SilenceWatch::new(&settings.expected, former.map(|former| &former.expected));
        let expected = match notice_writer(&settings, &keyring, &settlement, queue) {
            Some(writer) => expected.notifying(writer),
            None => expected,
        };
        let users = match former {
            Some(former) if former.settings.has_logins_of(&settings) => former.users.clone(),
            // Hashing passwords takes a while.
            _ => in_place(true, || {
                Users::new(settings.users.iter().map(|user| (user.name.clone(), user.password.clone())))
            }),
        };
        let lanes = delivery.lanes().cloned().collect();
        let plan = Arc::new(DeliveryPlan { deliver: delivery, settlement, bouncer, lanes, metrics });
        let mut generation = Self {
            settings,
            keyring,
            routes,
            upstreams,
            plan,
            leftovers,
            rates,
            storms,
            expected,
            users,
            roles: Vec::new(),
        };
        generation.roles = roles(&generation, foundation);
        Ok(generation)
    }

    /// For stored mail, when an operator asks for a retry with the rules.
    pub fn rules(&self) -> CurrentRules {
        CurrentRules { rules: self.settings.rules.clone(), routes: Some(self.routes.clone()) }
    }

    /// To see whether anything is still in progress under it once it was replaced.
    pub fn in_use(&self) -> InUse {
        let mut parts: Vec<Weak<dyn Any + Send + Sync>> = Vec::new();
        for role in &self.roles {
            let role: Weak<ListenerRole<ListenerIntake>> = Arc::downgrade(role);
            parts.push(role);
        }
        let bouncer: Weak<Bouncer> = Arc::downgrade(&self.plan.bouncer);
        parts.push(bouncer);
        InUse(parts)
    }

    pub fn retention(&self) -> Retention {
        Retention { failed: self.settings.queue.keep_failed, history: self.settings.queue.keep_history }
    }
}

/// What each listener does, in the order of the configuration.
fn roles(generation: &Generation, foundation: &Foundation) -> Vec<Arc<ListenerRole<ListenerIntake>>> {
    let Generation { settings, rates, users, storms, expected, .. } = generation;
    let role = |(number, typed): (usize, &ListenerSettings)| {
        let options = ListenerOptions {
            rates: rates.on(number, typed),
            metrics: foundation.metrics.listener(typed.options.address),
            ..typed.options.clone()
        };
        let pipeline = IntakePipeline {
            rates: options.rates.clone(),
            storms: storms.clone(),
            expected: expected.clone(),
            metrics: options.metrics.clone(),
            ..listeners::pipeline(settings, typed, &generation.keyring)
        };
        let intake = Arc::new(intake(typed, pipeline, generation, foundation));
        Arc::new(ListenerRole { options: Arc::new(options), users: users.clone(), intake })
    };
    settings.listeners.iter().enumerate().map(role).collect()
}

fn intake(
    typed: &ListenerSettings,
    pipeline: IntakePipeline,
    generation: &Generation,
    foundation: &Foundation,
) -> ListenerIntake {
    match typed.delivery {
        DeliveryMode::Queue => ListenerIntake::Queued(QueuedIntake {
            pipeline,
            queue: foundation.queue.clone(),
            settlement: generation.plan.settlement.clone(),
        }),
        DeliveryMode::Direct => ListenerIntake::Direct(DirectIntake {
            pipeline,
            delivery: generation.plan.deliver.clone(),
            leftovers: generation.leftovers.clone(),
            in_progress: foundation.in_progress.clone(),
            cut_off: foundation.cut_off.clone(),
        }),
    }
}

/// The author is `bounce_sender`, or in the first key's domain, so that it is signed.
fn notice_writer(
    settings: &Settings,
    keyring: &Keyring,
    settlement: &SettlementPolicy,
    queue: &Arc<dyn Backend>,
) -> Option<NoticeWriter> {
    let domain = keyring.keys().next().map_or_else(|| settings.hostname.clone(), |key| key.domain().to_string());
    let from = match &settings.queue.bounce_sender {
        ReversePath::Mailbox(sender) => sender.clone(),
        ReversePath::Null => Mailbox::parse(&format!("MAILER-DAEMON@{domain}")).ok()?,
    };
    Some(NoticeWriter {
        sender: settings.queue.bounce_sender.clone(),
        from,
        hostname: settings.hostname.as_str().into(),
        settlement: settlement.clone(),
        queue: queue.clone(),
    })
}

fn bouncer(settings: &Settings, settlement: &SettlementPolicy, queue: &Arc<dyn Backend>) -> Bouncer {
    Bouncer {
        bounce: settings.queue.bounce.clone(),
        sender: settings.queue.bounce_sender.clone(),
        hostname: settings.hostname.as_str().into(),
        settlement: settlement.clone(),
        queue: queue.clone(),
    }
}
