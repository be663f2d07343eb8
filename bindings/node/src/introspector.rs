//! The introspector, as `lib/` sees it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use napi::bindgen_prelude::{Buffer, FromNapiValue, Unknown};
use napi::{Env, Error, Result, Status};
use napi_derive::napi;
use tokenward_core::{Consumers, Decision, Failure, Header, Introspector, Now, Policy, Reply, TlsRoots};

use crate::config::{Problem, Source, load, refusal};
use crate::decide;
use crate::decision::{ConsumerInfo, OutboundInfo, Own, Refusal, Shared, Snapshot, StepInfo};
use crate::log::{Lines, LogLine, Sink};
use crate::steps::{self, Events, Parked, Steps};
use crate::text::{Latin1, Scratch};

/// An introspector and what belongs to its thread.
pub(crate) struct Port {
    pub(crate) core: Introspector,
    pub(crate) policies: RefCell<HashMap<u32, Further>>,
    /// As [`Further::lean`], of the document's own policy.
    pub(crate) lean: Cell<u32>,
    pub(crate) steps: RefCell<Steps>,
    pub(crate) current: RefCell<Current>,
    pub(crate) scratch: RefCell<Scratch>,
    pub(crate) target: RefCell<Scratch>,
    pub(crate) events: Arc<Events>,
    consumers: RefCell<Consumers>,
    lines: Arc<Lines>,
    level: Arc<AtomicU8>,
}

/// A further policy.
pub(crate) struct Further {
    pub(crate) policy: Policy,
    /// The methods, by bits, of those requests of which little counts.
    pub(crate) lean: u32,
}

/// The step that JavaScript was told of last, until it is told of another.
#[derive(Default)]
pub(crate) struct Current {
    pub(crate) decision: Option<Decision>,
    pub(crate) step: u32,
}

#[napi]
pub struct NativeIntrospector {
    port: Rc<Port>,
}

/// What the configuration says to those who make the call.
#[napi(object, object_from_js = false)]
pub struct Endpoint {
    pub introspection_url: String,
    /// Milliseconds.
    pub keepalive: f64,
    /// Bytes.
    pub reply_bytes: f64,
    /// Bytes.
    pub body_bytes: f64,
    pub concurrent: f64,
    /// Certificate authorities in PEM, where they are not the system's.
    pub roots: Option<Buffer>,
}

/// What a wait came to.
#[napi(object, object_from_js = false)]
pub struct Woken {
    pub number: u32,
    pub ready: bool,
}

#[napi]
impl NativeIntrospector {
    #[napi(constructor, catch_unwind)]
    pub fn new(source: Source, level: u32) -> Result<Self> {
        let (config, consumers) = load(source)?;
        let (events, lines, most) = <(Arc<Events>, Arc<Lines>, Arc<AtomicU8>)>::default();
        most.store(u8::try_from(level).unwrap_or(2), Ordering::Relaxed);
        let sink = Sink { lines: Arc::clone(&lines), events: Arc::clone(&events), most: Arc::clone(&most) };
        let core = Introspector::builder(config, consumers.clone())
            .log(sink)
            .build()
            .map_err(|error| Error::new(Status::GenericFailure, error.to_string()))?;
        let port = Port {
            lean: Cell::new(Port::lean_methods(&core, None)),
            core,
            policies: RefCell::default(),
            steps: RefCell::new(Steps::new(&events)),
            current: RefCell::default(),
            scratch: RefCell::default(),
            target: RefCell::default(),
            events,
            consumers: RefCell::new(consumers),
            lines,
            level: most,
        };
        Ok(Self { port: Rc::new(port) })
    }

    /// The function for whole requests, bound to this introspector.
    #[napi(
        catch_unwind,
        ts_return_type = "(text: string, what: number, trailers?: number, body?: Uint8Array | null, wall?: number, mono?: number) => number"
    )]
    pub fn decider<'e>(&self, env: &'e Env) -> Result<Unknown<'e>> {
        let function = decide::whole(env.raw(), &self.port)?;
        // SAFETY: a function that was made just now.
        unsafe { Unknown::from_napi_value(env.raw(), function) }
    }

    /// The function for what counts of lean requests, bound to this introspector.
    #[napi(
        catch_unwind,
        ts_return_type = "(credential: string, what: number, target?: string, wall?: number, mono?: number) => number"
    )]
    pub fn glancer<'e>(&self, env: &'e Env) -> Result<Unknown<'e>> {
        let function = decide::lean(env.raw(), &self.port)?;
        // SAFETY: a function that was made just now.
        unsafe { Unknown::from_napi_value(env.raw(), function) }
    }

    /// Of the allow that was told last.
    #[napi(catch_unwind)]
    pub fn shared(&self) -> Result<Shared> {
        match &self.port.current.borrow().decision {
            Some(Decision::Allow(allow)) => Ok(allow.into()),
            _ => Err(steps::used()),
        }
    }

    /// Of the allow that was told last.
    #[napi(catch_unwind)]
    pub fn own(&self) -> Result<Own> {
        match &self.port.current.borrow().decision {
            Some(Decision::Allow(allow)) => Ok(allow.into()),
            _ => Err(steps::used()),
        }
    }

    /// The refusal that was told last.
    #[napi(catch_unwind)]
    pub fn refusal(&self) -> Result<Refusal> {
        match &self.port.current.borrow().decision {
            Some(Decision::Deny(deny)) => Ok(deny.into()),
            _ => Err(steps::used()),
        }
    }

    /// The step that was told last, which is no decision.
    #[napi(catch_unwind)]
    pub fn step(&self) -> Result<StepInfo> {
        let number = self.port.current.borrow().step;
        let deadline = self.with_step(number, |step| match step {
            Parked::Exchange(exchange) => exchange.deadline(),
            Parked::Wait(wait) => wait.deadline(),
        })?;
        Ok(StepInfo { number, deadline: deadline.as_secs_f64() })
    }

    /// The call of a step.
    #[napi(catch_unwind)]
    pub fn outbound(&self, number: u32) -> Result<OutboundInfo> {
        self.with_step(number, |step| {
            let Parked::Exchange(exchange) = step else { return Err(steps::used()) };
            let outbound = exchange.outbound();
            Ok(OutboundInfo {
                method: outbound.method(),
                url: outbound.url().to_owned(),
                headers: outbound.headers().flat_map(|(name, value)| [name.into(), value.into()]).collect(),
                body: outbound.body().to_owned(),
                time_left: outbound.time_left().as_secs_f64() * 1000.0,
            })
        })?
    }

    /// Hands over an answer. `headers`: names and values in turn.
    #[napi(catch_unwind)]
    pub fn reply(
        &self,
        number: u32,
        status: u32,
        #[napi(ts_arg_type = "string[]")] headers: Vec<Latin1>,
        body: &[u8],
        wall: Option<f64>,
        mono: Option<f64>,
    ) -> Result<f64> {
        let lines: Vec<Header<'_>> =
            headers.chunks_exact(2).filter_map(|pair| Some(Header::new(&pair.first()?.0, &pair.get(1)?.0))).collect();
        let status = u16::try_from(status).unwrap_or(0);
        self.resume(number, &Reply::Response { status, headers: &lines, body }, wall, mono)
    }

    /// Hands over a failure, by its name.
    #[napi(catch_unwind)]
    pub fn fail(&self, number: u32, failure: String, wall: Option<f64>, mono: Option<f64>) -> Result<f64> {
        let failure = Failure::from_name(&failure)
            .ok_or_else(|| Error::new(Status::InvalidArg, "there is no failure of that name"))?;
        self.resume(number, &Reply::Failed(failure), wall, mono)
    }

    /// Goes on after a wait.
    #[napi(catch_unwind)]
    pub fn proceed(&self, number: u32, wall: Option<f64>, mono: Option<f64>) -> Result<f64> {
        let step = self.port.steps.borrow_mut().take(number);
        let next = steps::wait(step)?.resume(now(wall, mono));
        Ok(self.port.keep(next) as f64)
    }

    /// Drops a step. Tells whether it was still there.
    #[napi(catch_unwind)]
    pub fn abandon(&self, number: u32) -> bool {
        let step = self.port.steps.borrow_mut().take(number);
        step.is_some()
    }

    /// Milliseconds until a moment on the monotonic clock.
    #[napi(catch_unwind)]
    pub fn until(&self, deadline: f64) -> f64 {
        let left = decide::duration(deadline).saturating_sub(Now::read().monotonic());
        left.as_secs_f64() * 1000.0
    }

    /// The refusal for a defect.
    #[napi(catch_unwind)]
    pub fn internal(&self, head: bool) -> Refusal {
        match self.port.core.internal(head) {
            Decision::Deny(deny) => (&deny).into(),
            // INVARIANT: `internal` is a refusal.
            Decision::Allow(_) => Refusal {
                reason: "internal",
                number: 1599,
                status: 500,
                headers: Vec::new(),
                body: None,
                source: "none",
            },
        }
    }

    /// Waits that can go on or have ended since this was asked last.
    #[napi(catch_unwind)]
    pub fn woken(&self) -> Vec<Woken> {
        self.port.events.take().into_iter().map(|(number, ready)| Woken { number, ready }).collect()
    }

    /// Lines since this was asked last.
    #[napi(catch_unwind)]
    pub fn lines(&self) -> Vec<LogLine> {
        self.port.lines.take()
    }

    #[napi(catch_unwind)]
    pub fn set_level(&self, level: u32) {
        self.port.level.store(u8::try_from(level).unwrap_or(2), Ordering::Relaxed);
    }

    /// Makes a further policy and gives its number, from 1.
    #[napi(catch_unwind)]
    pub fn policy(&self, json: String) -> Result<u32> {
        let policy = self.port.core.policy(&json).map_err(|error| refusal(error.problems()))?;
        let mut policies = self.port.policies.borrow_mut();
        let number = (1..1 << 12)
            .find(|number| !policies.contains_key(number))
            .ok_or_else(|| Error::new(Status::GenericFailure, "there are too many policies"))?;
        let lean = Port::lean_methods(&self.port.core, Some(&policy));
        policies.insert(number, Further { policy, lean });
        Ok(number)
    }

    #[napi(catch_unwind)]
    pub fn release_policy(&self, number: u32) {
        let policy = self.port.policies.borrow_mut().remove(&number);
        drop(policy);
    }

    #[napi(catch_unwind)]
    pub fn replace_consumers(&self, json: String) -> Result<()> {
        let consumers = Consumers::from_json(&json).map_err(|error| refusal(error.problems()))?;
        self.direct(consumers);
        Ok(())
    }

    /// Replaces the configuration, and with `consumers` the document's consumers as well.
    #[napi(catch_unwind)]
    pub fn replace_config(&self, source: Source, consumers: bool) -> Result<()> {
        let (config, directory) = load(source)?;
        self.port.core.replace_config(config).map_err(|error| Error::new(Status::GenericFailure, error.to_string()))?;
        self.port.lean.set(Port::lean_methods(&self.port.core, None));
        for further in self.port.policies.borrow_mut().values_mut() {
            further.lean = Port::lean_methods(&self.port.core, Some(&further.policy));
        }
        if consumers {
            self.direct(directory);
        }
        Ok(())
    }

    #[napi(catch_unwind)]
    pub fn forget(&self, token: String) -> bool {
        self.port.core.forget(&token)
    }

    #[napi(catch_unwind)]
    pub fn forget_all(&self) {
        self.port.core.forget_all();
    }

    #[napi(catch_unwind)]
    pub fn snapshot(&self) -> Snapshot {
        (&self.port.core.snapshot()).into()
    }

    #[napi(catch_unwind)]
    pub fn prometheus(&self) -> String {
        self.port.core.snapshot().prometheus()
    }

    /// What is probably not meant about the configuration and the consumers of now.
    #[napi(catch_unwind)]
    pub fn warnings(&self) -> Vec<Problem> {
        let warnings = self.port.core.config().warnings_with(&self.port.consumers.borrow());
        warnings.iter().map(Into::into).collect()
    }

    #[napi(catch_unwind)]
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        self.port.consumers.borrow().iter().map(|consumer| (&**consumer).into()).collect()
    }

    #[napi(catch_unwind)]
    pub fn endpoint(&self) -> Endpoint {
        let config = self.port.core.config();
        let roots = match config.tls_roots() {
            TlsRoots::File { pem, .. } => Some(Buffer::from(pem.as_deref().unwrap_or_default().to_vec())),
            _ => None,
        };
        Endpoint {
            introspection_url: config.introspection_url().to_owned(),
            keepalive: config.keepalive().as_secs_f64() * 1000.0,
            reply_bytes: config.reply_bytes() as f64,
            body_bytes: config.body_bytes() as f64,
            concurrent: config.concurrent_introspections() as f64,
            roots,
        }
    }

    /// How many steps are neither done nor abandoned.
    #[napi(catch_unwind)]
    pub fn pending(&self) -> u32 {
        u32::try_from(self.port.steps.borrow().len()).unwrap_or(u32::MAX)
    }

    fn direct(&self, consumers: Consumers) {
        let before = self.port.consumers.replace(consumers.clone());
        drop(before);
        self.port.core.replace_consumers(consumers);
    }

    fn resume(&self, number: u32, reply: &Reply<'_>, wall: Option<f64>, mono: Option<f64>) -> Result<f64> {
        let step = self.port.steps.borrow_mut().take(number);
        let next = steps::exchange(step)?.resume(*reply, now(wall, mono));
        Ok(self.port.keep(next) as f64)
    }

    fn with_step<T>(&self, number: u32, then: impl FnOnce(&Parked) -> T) -> Result<T> {
        self.port.steps.borrow().look(number).map(then).ok_or_else(steps::used)
    }
}

fn now(wall: Option<f64>, mono: Option<f64>) -> Now {
    match (wall, mono) {
        (Some(wall), Some(mono)) => Now::new(decide::duration(wall), decide::duration(mono)),
        _ => Now::read(),
    }
}
