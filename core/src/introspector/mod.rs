//! The order of stages: reading the token, the cache, the flight, the endpoint, the checks, the edits.

mod step;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::cache::{Hit, Lookup};
use crate::checks::Verified;
use crate::claims::Claims;
use crate::clock::Now;
use crate::config::{Config, ConfigError, Policy, Problem, Profile};
use crate::consumer::{Consumers, Identity};
use crate::decision::{Allow, Decision, Deny, Grant, Made, Reason, Seconds, Shared, Source};
use crate::flight::Slots;
use crate::headers::{self, Set};
use crate::hide::{Fields, Hidden};
use crate::key::Key;
use crate::log::{Level, Log, Record, Throttle, fingerprint};
use crate::outbound::Question;
use crate::reply::{Introspection, NoAnswer, Reply};
use crate::request::Request;
use crate::stats::{Snapshot, Stats, count};
use crate::store::Store;
use crate::token::{self, Malformed, Presented, Reading};

use self::step::Context;
pub use self::step::{Exchange, Step, Wait};

/// Decides about requests: one endpoint, its caches, its flights, and a directory of consumers.
///
/// Cloning is cheap, and all clones are one introspector. It works from any number of threads at once.
#[derive(Clone)]
pub struct Introspector {
    inner: Arc<Inner>,
}

struct Inner {
    state: ArcSwap<State>,
    consumers: ArcSwap<Directory>,
    /// Of `consumers`: what was computed from an older directory is not used.
    generation: AtomicU64,
    slots: Slots,
    flights: AtomicU64,
    stats: Stats,
    throttle: Throttle,
    log: Option<Box<dyn Log>>,
    /// Held while configuration or consumers are replaced or tokens are forgotten, never on a request's way.
    replacing: parking_lot::Mutex<()>,
}

struct Directory {
    consumers: Consumers,
    generation: u64,
}

/// A configuration and what belongs to it.
struct State {
    config: Config,
    store: Arc<Store>,
    #[cfg(feature = "client")]
    client: crate::client::Client,
}

/// Builds an introspector.
#[must_use]
pub struct Builder {
    config: Config,
    consumers: Consumers,
    log: Option<Box<dyn Log>>,
}

/// Why an introspector could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The operating system gave no random bytes for the cache key.
    #[error("the operating system gave no random bytes: {0}")]
    Random(String),
    /// The endpoint's certificate authorities could not be read.
    #[error("the certificate authorities could not be read: {0}")]
    TlsRoots(String),
}

impl Builder {
    /// Where log lines go. Without it there are none.
    pub fn log(mut self, sink: impl Log + 'static) -> Self {
        self.log = Some(Box::new(sink));
        self
    }

    /// Builds the introspector. What is probably not meant goes to the log as warnings.
    ///
    /// # Errors
    /// If the operating system gives no randomness, or the endpoint's certificate authorities cannot be read.
    pub fn build(self) -> Result<Introspector, BuildError> {
        let store = Store::new(&self.config, None).map_err(BuildError::Random)?;
        let warnings = self.config.warnings_with(&self.consumers);
        let inner = Inner {
            state: ArcSwap::from_pointee(State {
                #[cfg(feature = "client")]
                client: crate::client::Client::new(&self.config).map_err(BuildError::TlsRoots)?,
                config: self.config,
                store: Arc::new(store),
            }),
            consumers: ArcSwap::from_pointee(Directory { consumers: self.consumers, generation: 1 }),
            generation: AtomicU64::new(1),
            slots: Slots::default(),
            flights: AtomicU64::new(1),
            stats: Stats::default(),
            throttle: Throttle::new(),
            log: self.log,
            replacing: parking_lot::Mutex::new(()),
        };
        inner.warn(&warnings);
        Ok(Introspector { inner: Arc::new(inner) })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("config", &self.config)
            .field("consumers", &self.consumers)
            .finish_non_exhaustive()
    }
}

impl Introspector {
    /// An introspector of this configuration and these consumers.
    pub fn builder(config: Config, consumers: Consumers) -> Builder {
        Builder { config, consumers, log: None }
    }

    /// Begins to decide about a request, by the document's own policy.
    #[inline]
    pub fn begin(&self, request: &Request<'_>, now: Now) -> Step {
        let state = self.inner.state.load();
        self.begin_in(&state, &state.config.policy, request, now)
    }

    /// Begins to decide about a request, by a further policy.
    #[inline]
    pub fn begin_with(&self, policy: &Policy, request: &Request<'_>, now: Now) -> Step {
        let state = self.inner.state.load();
        self.begin_in(&state, policy, request, now)
    }

    /// Begins to decide about a request whose body was not read, by a policy or the document's own: [`needs_body`](Self::needs_body)
    /// and [`begin`](Self::begin) in one. None, and nothing is counted or begun, where the body is needed.
    pub fn begin_without_body(&self, policy: Option<&Policy>, request: &Request<'_>, now: Now) -> Option<Step> {
        let state = self.inner.state.load();
        let policy = policy.unwrap_or(&state.config.policy);
        (!needs_body(&state.config, policy, request)).then(|| self.begin_in(&state, policy, request, now))
    }

    /// Decides without asking anybody: from what is remembered, or where no answer is needed. None, and nothing is counted or
    /// begun, where [`begin`](Self::begin) would give a call to make or a wait.
    pub fn lookup(&self, request: &Request<'_>, now: Now) -> Option<Decision> {
        let state = self.inner.state.load();
        decided(self.known(&state, &state.config.policy, request, now))
    }

    /// The same, by a further policy.
    pub fn lookup_with(&self, policy: &Policy, request: &Request<'_>, now: Now) -> Option<Decision> {
        let state = self.inner.state.load();
        decided(self.known(&state, policy, request, now))
    }

    /// Whether the body is needed to decide by the document's own policy. A host reads and hands over a body only then, up to
    /// [`body_bytes`](Self::body_bytes).
    #[must_use]
    pub fn needs_body(&self, request: &Request<'_>) -> bool {
        let state = self.inner.state.load();
        needs_body(&state.config, &state.config.policy, request)
    }

    /// The same, by a further policy.
    #[must_use]
    pub fn needs_body_with(&self, policy: &Policy, request: &Request<'_>) -> bool {
        needs_body(&self.inner.state.load().config, policy, request)
    }

    /// Whether little of a request of this method counts under a policy, the document's own if there is none: beside the method
    /// nothing but its fields of [`counted_headers`](crate::counted_headers), its trailers, and its target if that has a `?`. A host to whom
    /// every byte costs that crosses into the core may then leave out all other fields, and give `/` for another target: every
    /// decision is the same. This holds until the configuration is replaced.
    #[must_use]
    pub fn is_lean(&self, policy: Option<&Policy>, method: &[u8]) -> bool {
        let state = self.inner.state.load();
        let rules = &*policy.unwrap_or(&state.config.policy).0;
        let reads_body = rules.places.body && token::may_have_body(method);
        let reads_preflight = !rules.run_on_preflight && method == b"OPTIONS";
        // How a target in authority form is read depends on more than its query.
        !state.config.endpoint.introspect_request && !reads_body && !reads_preflight && method != b"CONNECT"
    }

    /// How much of a request's body is read at most, in bytes. Defaults to 1 MiB.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.inner.state.load().config.body_bytes()
    }

    /// A further policy over the same cache and flights, from a JSON object of policy fields. Fields that it does not give are
    /// those of the document's own policy; `require` is given as a whole.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn policy(&self, json: &str) -> Result<Policy, ConfigError> {
        let (policy, warnings) = self.inner.state.load().config.further_policy(json)?;
        self.inner.warn(&warnings);
        Ok(policy)
    }

    /// The configuration of now.
    #[must_use]
    pub fn config(&self) -> Config {
        self.inner.state.load().config.clone()
    }

    /// A claim of an allow as one header value, encoded as that of `X-Credential-*` would be under this policy, the document's
    /// own if there is none: for hosts that show claims in logs or templates. An array that a policy sends as several lines is
    /// compact JSON here. None for what counts as absent, and for what is over `limits.header_bytes`.
    #[must_use]
    pub fn claim_value(&self, policy: Option<&Policy>, claims: &Claims, name: &str) -> Option<String> {
        let state = self.inner.state.load();
        let rules = &*policy.unwrap_or(&state.config.policy).0;
        headers::value(claims.value(name)?, &rules.writing, state.config.settings.header_bytes)
    }

    /// The first 8 hex digits of the SHA-256 of the token that a request presents: the form in which log lines name it, and
    /// too short to tell tokens apart for certain. None if it presents none that is well-formed.
    #[must_use]
    pub fn fingerprint(&self, policy: Option<&Policy>, request: &Request<'_>) -> Option<String> {
        let state = self.inner.state.load();
        let policy = policy.unwrap_or(&state.config.policy);
        let fields = Fields::scan(request, policy.0.profile == Profile::Kong);
        match &token::read(request, &fields.authorization, &reading(&state.config, policy)).presented {
            Presented::Token(token) if token::is_b64token(token.bytes()) => Some(fingerprint(token.bytes())),
            _ => None,
        }
    }

    /// Replaces the directory of consumers at once, for every decision from now on.
    pub fn replace_consumers(&self, consumers: Consumers) {
        let replaced = {
            let _replacing = self.inner.replacing.lock();
            let generation = self.inner.generation.load(Ordering::Relaxed) + 1;
            let replaced = self.inner.consumers.swap(Arc::new(Directory { consumers, generation }));
            self.inner.generation.store(generation, Ordering::Release);
            replaced
        };
        drop(replaced); // a million consumers are freed outside of the lock
        self.inner.log(Level::Info, None, "consumers replaced", &[]);
        self.warn();
    }

    /// Replaces the configuration. Cached answers are kept if URL, credentials, parameters, headers, hint and
    /// `introspect_request` are the same; otherwise the cache starts empty, and answers to questions under way are not
    /// remembered. Policies made before stay as they are.
    ///
    /// # Errors
    /// As [`Builder::build`]; the old configuration then stays.
    pub fn replace_config(&self, config: Config) -> Result<(), BuildError> {
        let replaced = {
            let _replacing = self.inner.replacing.lock();
            let old = self.inner.state.load_full();
            #[cfg(feature = "client")]
            let client = crate::client::Client::new(&config).map_err(BuildError::TlsRoots)?;
            let store = if old.config.endpoint != config.endpoint {
                Arc::new(Store::new(&config, Some(&old.store)).map_err(BuildError::Random)?)
            } else if old.config.settings.sizes != config.settings.sizes {
                Arc::new(old.store.resized(&config))
            } else {
                Arc::clone(&old.store)
            };
            self.inner.state.swap(Arc::new(State {
                config,
                store,
                #[cfg(feature = "client")]
                client,
            }))
        };
        drop(replaced);
        self.inner.log(Level::Info, None, "configuration replaced", &[]);
        self.warn();
        Ok(())
    }

    /// Forgets what is remembered about a token, for every method and path; tells whether there was something. A request that
    /// begins afterwards asks anew. With `introspect_request`, this looks at every entry of the cache.
    pub fn forget(&self, token: &str) -> bool {
        let _replacing = self.inner.replacing.lock();
        self.inner.state.load().store.forget(token.as_bytes())
    }

    /// Forgets everything.
    pub fn forget_all(&self) {
        let _replacing = self.inner.replacing.lock();
        self.inner.state.load().store.forget_all();
    }

    /// The counters of now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.inner.stats.snapshot();
        self.inner.state.load().store.count(&mut snapshot);
        snapshot.in_flight = self.inner.slots.held();
        snapshot
    }

    /// The refusal for a defect: what a binding gives where it caught a panic, or cannot go on. `head`: the request is HEAD.
    pub fn internal(&self, head: bool) -> Decision {
        let decision = Decision::internal(head);
        self.inner.stats.decided(&decision, None);
        decision
    }

    /// Logs what is probably not meant about the configuration and the consumers of now.
    fn warn(&self) {
        let warnings = self.inner.state.load().config.warnings_with(&self.inner.consumers.load().consumers);
        self.inner.warn(&warnings);
    }

    #[inline(always)]
    fn begin_in(&self, state: &Arc<State>, policy: &Policy, request: &Request<'_>, now: Now) -> Step {
        self.known(state, policy, request, now).unwrap_or_else(|context| {
            if context.body_not_searched {
                count(&self.inner.stats.bodies_not_searched);
            }
            context.ask(now, Source::Cache)
        })
    }

    /// The decision, if nobody has to be asked for it, as a step that is done.
    fn known(
        &self,
        state: &Arc<State>,
        policy: &Policy,
        request: &Request<'_>,
        now: Now,
    ) -> Result<Step, Box<Context>> {
        let rules = &*policy.0;
        let kong = rules.profile == Profile::Kong;
        let head = request.method == b"HEAD";
        let inner = &*self.inner;
        let fields = Fields::scan(request, kong);
        let asked = |key, source| Asked { state, policy, key, head, source, now, hit: None };

        if !rules.run_on_preflight && is_preflight(request, kong) {
            let hidden = Hidden::of(request, fields, None, rules.hide);
            let allow = Allow { shared: None, hidden, source: Source::None };
            return Ok(inner.done(&asked(None, Source::None), Decision::Allow(allow)));
        }

        let found = token::read(request, &fields.authorization, &reading(&state.config, policy));
        let known = |step| {
            if found.body_not_searched {
                count(&inner.stats.bodies_not_searched);
            }
            Ok(step)
        };
        let hidden = Hidden::of(request, fields, Some(&found), rules.hide);
        let token = match &found.presented {
            Presented::Token(token) => token.bytes(),
            Presented::Nothing => {
                return known(inner.refuse(&asked(None, Source::None), Reason::TokenMissing.into(), hidden));
            }
            Presented::Malformed(malformed) => {
                let denial = Denial { malformed: Some(*malformed), ..Denial::from(Reason::RequestMalformed) };
                return known(inner.refuse(&asked(None, Source::None), denial, hidden));
            }
        };

        let key = state.store.key(token, request);
        if state.config.settings.cache
            && let Some(hit) = state.store.find(&key, &inner.lookup(state, policy, now))
        {
            let asked = Asked { hit: Some(!matches!(hit, Hit::Inactive)), ..asked(Some(&key), Source::Cache) };
            return known(inner.conclude(&asked, hit, hidden));
        }
        if found.unchecked && !token::is_b64token(token) {
            let denial = Denial { malformed: Some(Malformed::Header), ..Denial::from(Reason::RequestMalformed) };
            return known(inner.refuse(&asked(None, Source::None), denial, hidden));
        }
        Err(Box::new(Context {
            inner: Arc::clone(&self.inner),
            state: Arc::clone(state),
            policy: policy.clone(),
            key,
            family: state.store.family(token),
            question: Question::new(token, request, state.config.endpoint.introspect_request),
            hidden,
            body_not_searched: found.body_not_searched,
            head,
            deadline: now.mono.saturating_add(state.config.settings.timeout),
        }))
    }
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector").finish_non_exhaustive()
    }
}

fn decided(known: Result<Step, Box<Context>>) -> Option<Decision> {
    match known {
        Ok(Step::Done(decision)) => Some(decision),
        _ => None,
    }
}

fn reading(config: &Config, policy: &Policy) -> Reading {
    Reading {
        places: policy.0.places,
        kong: policy.0.profile == Profile::Kong,
        token_bytes: config.settings.token_bytes,
        body_bytes: config.settings.body_bytes,
    }
}

fn needs_body(config: &Config, policy: &Policy, request: &Request<'_>) -> bool {
    let reading = reading(config, policy);
    let skipped = !policy.0.run_on_preflight && is_preflight(request, reading.kong);
    if !reading.places.body || skipped {
        return false;
    }
    let fields = Fields::scan(request, reading.kong);
    token::needs_body(request, &fields.authorization, &reading)
}

/// A CORS preflight (Fetch standard); in profile `kong` any OPTIONS.
fn is_preflight(request: &Request<'_>, kong: bool) -> bool {
    let has = |name| request.headers.iter().any(|header| header.is(name));
    request.method == b"OPTIONS" && (kong || (has("origin") && has("access-control-request-method")))
}

impl From<Introspection> for Hit {
    fn from(introspection: Introspection) -> Self {
        match introspection {
            Introspection::Active(claims) => Self::Active(claims),
            Introspection::Inactive => Self::Inactive,
        }
    }
}

#[derive(Clone, Copy)]
struct Denial {
    reason: Reason,
    malformed: Option<Malformed>,
    retry_after: Option<u16>,
}

impl From<Reason> for Denial {
    fn from(reason: Reason) -> Self {
        Self { reason, malformed: None, retry_after: None }
    }
}

impl From<NoAnswer> for Denial {
    fn from(none: NoAnswer) -> Self {
        Self { retry_after: none.retry_after, ..Self::from(none.reason) }
    }
}

/// What a decision depends on beside the answer.
struct Asked<'a> {
    state: &'a State,
    policy: &'a Policy,
    /// None if no token was presented.
    key: Option<&'a Key>,
    head: bool,
    source: Source,
    now: Now,
    /// The answer was remembered, and whether it was a positive one.
    hit: Option<bool>,
}

impl Inner {
    fn lookup<'s>(&self, state: &'s State, policy: &Policy, now: Now) -> Lookup<'s> {
        let generation = self.generation.load(Ordering::Acquire);
        let settings = &state.config.settings;
        let made = Made::new(policy.0.edits, generation, settings.header_bytes);
        Lookup { now, settings, made }
    }

    /// The one way from an answer to a decision, fresh, remembered or waited for: no check can be skipped.
    #[inline(always)]
    fn conclude(&self, asked: &Asked<'_>, answer: Hit, hidden: Hidden) -> Step {
        let rules = &*asked.policy.0;
        let leeway = asked.state.config.settings.leeway;
        let token = match &answer {
            Hit::Inactive => None,
            Hit::Active(claims) => Some((&claims.bounds, &**claims)),
            Hit::Known(grant, bounds) => grant.claims.as_deref().map(|claims| (bounds, claims)),
        };
        let Some((bounds, claims)) = token else {
            return self.refuse(asked, Reason::TokenInactive.into(), hidden);
        };
        let verified = match claims.verify(bounds, &rules.requirements, asked.now.wall, leeway) {
            Ok(verified) => verified,
            Err(reason) => return self.refuse(asked, reason.into(), hidden),
        };
        let computed = if let Hit::Active(claims) = &answer { Some(self.grant(asked, claims, verified)) } else { None };
        let grant = match (computed, answer) {
            (Some(grant), _) => grant,
            // Computed for these very claims, which have just passed their checks again.
            (None, Hit::Known(grant, _)) => grant,
            (None, _) => return self.refuse(asked, Reason::Internal.into(), hidden),
        };
        if rules.require_consumer && grant.identity == Identity::Unmatched {
            return self.refuse(asked, Reason::ConsumerUnknown.into(), hidden);
        }
        self.done(asked, Decision::Allow(Allow { shared: Some(Shared(grant)), hidden, source: asked.source }))
    }

    /// Matches the consumer and computes the edits: once per answer, policy and directory.
    fn grant(&self, asked: &Asked<'_>, claims: &Arc<Claims>, verified: Verified<'_>) -> Arc<Grant> {
        let rules = &*asked.policy.0;
        let settings = &asked.state.config.settings;
        let directory = self.consumers.load();
        let identity = match directory.consumers.behind(claims, rules.consumer_by) {
            Some(consumer) => Identity::Consumer(Arc::clone(consumer)),
            None => Identity::Unmatched,
        };
        let set = Set::of_token(verified, &identity, &rules.writing, settings.header_bytes);
        self.stats.values_left_out.fetch_add(set.left_out.into(), Ordering::Relaxed);
        let made = Made::new(rules.edits, directory.generation, settings.header_bytes);
        let grant = Arc::new(Grant::of_token(claims, made.unwrap_or_default(), identity, set));
        if settings.cache
            && made.is_some()
            && let Some(key) = asked.key
        {
            asked.state.store.keep(key, claims, Arc::clone(&grant));
        }
        grant
    }

    /// Denies, or lets the anonymous consumer stand in where the policy says so.
    fn refuse(&self, asked: &Asked<'_>, mut denial: Denial, hidden: Hidden) -> Step {
        let rules = &*asked.policy.0;
        let settings = &asked.state.config.settings;
        if let Some(name) = &rules.anonymous
            && denial.reason.class().is_some_and(|class| rules.anonymous_on.contains(&class))
        {
            if let Some(consumer) = self.consumers.load().consumers.named(name) {
                let set = Set::of_anonymous(consumer, &rules.writing, settings.header_bytes);
                self.stats.values_left_out.fetch_add(set.left_out.into(), Ordering::Relaxed);
                let shared = Some(Shared(Arc::new(Grant::anonymous(Arc::clone(consumer), set))));
                return self.done(asked, Decision::Allow(Allow { shared, hidden, source: asked.source }));
            }
            denial = Reason::AnonymousConsumerMissing.into();
            let fields = [("setting", "anonymous".to_owned())];
            self.complain(denial.reason, "the setting names no consumer", &fields, asked.now);
        }
        self.done(
            asked,
            Decision::Deny(Deny {
                reason: denial.reason,
                malformed: denial.malformed,
                source: asked.source,
                policy: Some(asked.policy.clone()),
                retry_after: Seconds::new(denial.retry_after.unwrap_or(settings.retry_after)),
                head: asked.head,
            }),
        )
    }

    #[inline(always)]
    fn done(&self, asked: &Asked<'_>, decision: Decision) -> Step {
        self.stats.decided(&decision, asked.hit);
        if let Decision::Deny(deny) = &decision
            && self.wants(Level::Debug)
        {
            let fields = [("status", deny.status().to_string()), ("source", asked.source.name().to_owned())];
            self.log(Level::Debug, Some(deny.reason), "denied", &fields);
        }
        Step::Done(decision)
    }

    /// Logs a reply that is a failure of the authorization server.
    fn report(
        &self,
        reply: &Reply<'_>,
        read: &Result<Introspection, NoAnswer>,
        question: &Question,
        elapsed: i64,
        now: Now,
    ) {
        let reason = match (reply, read) {
            (_, Err(none)) => none.reason,
            // An answer to this token, and a fault of the server or its configuration all the same.
            (Reply::Response { status: 400, .. }, Ok(_)) => Reason::TokenInactive,
            _ => return,
        };
        if self.log.is_none() {
            return;
        }
        let what = match reply {
            Reply::Failed(failure) => ("failure", failure.name().to_owned()),
            Reply::Response { status, .. } => ("status", status.to_string()),
        };
        let elapsed = ("elapsed_ms", (elapsed / 1000).to_string());
        let fields = [what, elapsed, ("token", fingerprint(question.token()))];
        self.complain(reason, "introspection failed", &fields, now);
    }

    fn warn(&self, warnings: &[Problem]) {
        for warning in warnings {
            let fields = [("setting", warning.path().to_owned())];
            self.log(Level::Warn, None, &warning.to_string(), &fields);
        }
    }

    fn wants(&self, level: Level) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_enabled(level))
    }

    fn log(&self, level: Level, reason: Option<Reason>, message: &str, fields: &[(&'static str, String)]) {
        if let Some(log) = &self.log
            && log.is_enabled(level)
        {
            log.log(&Record { level, reason, message, fields });
        }
    }

    /// One line for each failure of the authorization server or the setup, at most one a second per reason.
    fn complain(&self, reason: Reason, message: &str, fields: &[(&'static str, String)], now: Now) {
        if self.log.is_none() {
            return;
        }
        if let Some(suppressed) = self.throttle.pass(reason, now.mono) {
            let level = match reason {
                Reason::EndpointUnreachable
                | Reason::EndpointTimedOut
                | Reason::EndpointUnavailable
                | Reason::Overloaded => Level::Warn,
                _ => Level::Error,
            };
            let mut fields = fields.to_vec();
            if suppressed > 0 {
                fields.push(("suppressed", suppressed.to_string()));
            }
            self.log(level, Some(reason), message, &fields);
        }
    }
}
