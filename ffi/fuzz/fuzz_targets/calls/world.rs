//! A host that has one introspector at a time and a few steps, and whose callbacks come back.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::hint::black_box;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::LazyLock;

use tokenward::*;
use tokenward_core_fuzz::Input;

use crate::views::{self, OK, view};

const STEPS: usize = 8;
const SECOND: u64 = 1_000_000;
const TOKENS: [&[u8]; 3] = [b"Bearer a", b"Bearer b", b"Bearer c"];
const MOVES: [u64; 8] = [1, SECOND / 4, SECOND / 2, SECOND, 2 * SECOND, 3 * SECOND, 10 * SECOND, 3600 * SECOND];
/// With small caches, which are cheap to make.
const CONFIGS: [&str; 4] = [
    r#"{"introspection_url":"https://as.example/one","authorization_value":"x","timeout":2000,"ttl":2,
        "cache":{"negative_ttl":1,"capacity":100},"consumers":[{"id":"1","username":"alice","tags":["t"],"groups":["g","h"]}]}"#,
    r#"{"introspection_url":"https://as.example/one","authorization_value":"x","timeout":2000,"profile":"kong",
        "limits":{"concurrent_introspections":1},"anonymous":"1","cache":{"capacity":1,"negative_capacity":1},
        "consumers":[{"id":"1","custom_id":"c"}]}"#,
    r#"{"introspection_url":"https://as.example/two?key=s","introspection_params":{"a":"b"},"timeout":2000,
        "client_auth":{"method":"client_secret_post","client_id":"a","client_secret":"b"},"introspect_request":true,"cache":{"capacity":100},
        "custom_introspection_headers":{"X-A":"b"},"custom_claims_forward":["a"],"array_format":"repeat"}"#,
    r#"{"introspection_url":"https://as.example/one","authorization_value":"x","timeout":2000,"cache":{"enabled":false,"capacity":100},
        "retry":{"attempts":5}}"#,
];
const REPLIES: [(u32, &str); 12] = [
    (200, r#"{"active":true,"username":"alice","sub":"s","scope":"read","a":["1",2,null]}"#),
    (200, r#"{"active":true,"exp":1700000001}"#),
    (200, r#"{"active":true,"exp":1700003600,"sub":"\u00e9\ud83d\ude00","a":{"0":1}}"#),
    (200, r#"{"active":true,"nbf":1700000010}"#),
    (200, r#"{"active":true,"cnf":{}}"#),
    (200, r#"{"active":false}"#),
    (400, r#"{"error":"unsupported_token_type"}"#),
    (503, ""),
    (401, "no"),
    (200, "[]"),
    (99, ""),
    (1000, "{}"),
];

/// Documents are read once; introspectors are made of them for every run.
struct Documents([*mut tokenward_document; CONFIGS.len()]);

// SAFETY: a document is used from any thread, also at once.
unsafe impl Send for Documents {}
// SAFETY: as above.
unsafe impl Sync for Documents {}

static DOCUMENTS: LazyLock<Documents> =
    LazyLock::new(|| Documents(CONFIGS.map(|config| document(config.as_bytes()).expect("a document"))));

/// Reads a document; an error is looked at, and freed.
fn document(text: &[u8]) -> Option<*mut tokenward_document> {
    let (mut document, mut error) = (null_mut(), null_mut());
    // SAFETY: zeros are valid for it; text lives during the call.
    let result = unsafe {
        let source = tokenward_source { struct_size: size_of::<tokenward_source>(), text: view(text), ..zeroed() };
        tokenward_document_new(&source, &mut document, &mut error)
    };
    assert_eq!(error.is_null(), result != tokenward_result::TOKENWARD_INVALID_CONFIG);
    if !error.is_null() {
        // SAFETY: it was given.
        unsafe { views::error(error) };
    }
    (result == OK).then_some(document)
}

/// What one registration is called with.
struct Told {
    host: *const Host,
    slot: usize,
    /// What the callback does.
    action: u8,
    argument: u8,
}

/// What callbacks share with the calls that they run inside of: cells alone.
#[derive(Default)]
struct Host {
    introspector: Cell<*mut tokenward_introspector>,
    policy: Cell<*mut tokenward_policy>,
    steps: [Cell<*mut tokenward_step>; STEPS],
    /// A call about it is under way.
    busy: [Cell<u32>; STEPS],
    wall: Cell<u64>,
    mono: Cell<u64>,
    registered: Cell<u64>,
    told: Cell<u64>,
    /// Introspectors made with a log, and logs released.
    logs: Cell<u64>,
    released: Cell<u64>,
    /// Callbacks are never nested.
    inside: Cell<bool>,
    claims: RefCell<Vec<u8>>,
}

unsafe extern "C" fn on_ready(userdata: *mut c_void, _ready: bool) {
    // SAFETY: what it was registered with; called once, which is where it is released.
    let told = unsafe { Box::from_raw(userdata.cast::<Told>()) };
    // SAFETY: the host outlives all steps.
    let host = unsafe { &*told.host };
    host.told.set(host.told.get() + 1);
    assert!(!host.inside.replace(true), "callbacks are never nested");
    let own = usize::from(told.argument) % STEPS;
    match told.action % 8 {
        0 => host.free(told.slot),
        1 => host.resume(told.slot),
        2 => host.begin(told.argument, 0),
        3 => host.free(own),
        4 => host.reply(own, told.argument, 0),
        5 => host.register(told.slot, told.argument, told.argument / 8),
        6 => host.resume(own),
        _ => host.look(told.slot),
    }
    host.inside.set(false);
}

unsafe extern "C" fn log(userdata: *mut c_void, line: *const tokenward_line) {
    // SAFETY: what it was registered with, and a live line.
    unsafe {
        let host = &*userdata.cast::<Host>();
        views::line(line);
        // A log function may look at a step.
        black_box(tokenward_step_wait(host.steps[0].get()));
    }
}

unsafe extern "C" fn release(userdata: *mut c_void) {
    // SAFETY: what it was registered with.
    let host = unsafe { &*userdata.cast::<Host>() };
    host.released.set(host.released.get() + 1);
}

impl Host {
    fn now(&self) -> tokenward_time {
        tokenward_time { wall_us: self.wall.get(), monotonic_us: self.mono.get() }
    }

    fn make(&self, chosen: u8) {
        if !self.introspector.get().is_null() {
            return;
        }
        let mut introspector = null_mut();
        // SAFETY: zeros are valid for it; the host outlives the log.
        unsafe {
            let mut options = tokenward_options { struct_size: size_of::<tokenward_options>(), ..zeroed() };
            options.log_level = u32::from(chosen / 8 % 5);
            if chosen / 4 % 2 == 0 {
                options.log = Some(log);
                options.log_userdata = std::ptr::from_ref(self).cast_mut().cast();
                options.log_release = Some(release);
            } else {
                options.log_lines = 3;
            }
            let document = DOCUMENTS.0[usize::from(chosen) % CONFIGS.len()];
            assert_eq!(tokenward_introspector_new(document, &options, &mut introspector, null_mut()), OK);
            self.logs.set(self.logs.get() + u64::from(options.log.is_some()));
        }
        self.introspector.set(introspector);
    }

    fn begin(&self, chosen: u8, odd: u8) {
        let Some(slot) = self.steps.iter().position(|step| step.get().is_null()) else { return };
        let chosen = usize::from(chosen);
        let mut lines = vec![tokenward_header { name: view(b"Authorization"), value: view(TOKENS[chosen % 3]) }];
        let text = self.claims.borrow().clone();
        // SAFETY: zeros are valid for it; what it points to lives during the call.
        unsafe {
            let mut request: tokenward_request = zeroed();
            request.struct_size = size_of::<tokenward_request>();
            request.method = view(if odd & 1 == 0 { b"GET" } else { b"POST" });
            request.target = view(if chosen / 3 % 2 == 0 { b"/" } else { b"/other?access_token=a&b" });
            if odd & 2 != 0 {
                // More than fit on the stack.
                lines.extend([tokenward_header { name: view(b"x_consumer_id"), value: view(&text) }; 40]);
            }
            if odd & 4 != 0 {
                lines.push(tokenward_header { name: view(&text), value: tokenward_str { data: null(), len: 0 } });
                request.target = view(&text);
            }
            if odd & 8 != 0 {
                lines.push(tokenward_header {
                    name: view(b"Content-Type"),
                    value: view(b"application/x-www-form-urlencoded"),
                });
                request.body = view(&text);
            }
            let trailers = [view(&text), view(b"X-Credential-A")];
            (request.trailers, request.trailers_len) = (trailers.as_ptr(), usize::from(odd & 16 != 0) * 2);
            (request.headers, request.headers_len) = (lines.as_ptr(), lines.len());
            let mut refused = false;
            if odd & 32 != 0 {
                refused = true;
                match odd >> 6 {
                    0 => request.struct_size -= 8,
                    1 => request.method = tokenward_str { data: null(), len: 3 },
                    2 => request.headers_len = usize::MAX,
                    _ => request.trailers = null(),
                }
                refused &= odd >> 6 != 3 || request.trailers_len > 0;
            }
            let policy = if chosen / 6 % 2 == 1 { self.policy.get() } else { null_mut() };
            let introspector = self.introspector.get();
            let (mut needed, mut digits) = (false, [0; 8]);
            let needs = tokenward_needs_body(introspector, policy, &request, &mut needed);
            let shown = tokenward_fingerprint(introspector, policy, &request, digits.as_mut_ptr());
            let mut step = null_mut();
            let result = if chosen / 12 % 2 == 0 {
                tokenward_begin(introspector, policy, &request, &self.now(), &mut step)
            } else {
                let mut brief: tokenward_brief = zeroed();
                let size = size_of::<tokenward_brief>();
                let result = tokenward_begin_brief(introspector, policy, &request, &self.now(), &mut brief, size);
                views::brief(&brief);
                step = brief.step;
                result
            };
            assert_eq!(step.is_null(), result != OK);
            assert_eq!(result == OK, needs == OK);
            assert_eq!(result == OK, !introspector.is_null() && !refused, "{result:?}");
            assert!(shown != OK || (result == OK && digits.iter().all(|digit| *digit != 0)));
            if result == OK {
                // A log function may have begun nothing: the slot is still free.
                self.steps[slot].set(step);
                self.look(slot);
            }
        }
    }

    /// Makes a call about a step. It says FREED if a callback freed it, and in no other case.
    fn about(&self, slot: usize, call: impl FnOnce(*mut tokenward_step) -> tokenward_result) {
        let step = self.steps[slot].get();
        if step.is_null() {
            return;
        }
        self.busy[slot].set(self.busy[slot].get() + 1);
        let result = call(step);
        self.busy[slot].set(self.busy[slot].get() - 1);
        assert!(result != tokenward_result::TOKENWARD_PANIC);
        let is_mine = self.steps[slot].get() == step;
        if result == tokenward_result::TOKENWARD_FREED {
            assert!(!is_mine, "freed by nobody");
        } else if is_mine {
            self.look(slot);
        }
    }

    fn reply(&self, slot: usize, chosen: u8, failure: u32) {
        let (status, body) = REPLIES[usize::from(chosen) % REPLIES.len()];
        let own = self.claims.borrow().clone();
        let body = if chosen > 200 { &own } else { body.as_bytes() };
        let lines = [
            tokenward_header { name: view(b"Content-Type"), value: view(b"application/json") },
            tokenward_header { name: view(b"Retry-After"), value: view(&own) },
        ];
        self.about(slot, |step| {
            // SAFETY: zeros are valid for it; the step lives, and what is passed lives during the call.
            unsafe {
                let mut reply: tokenward_reply = zeroed();
                reply.struct_size = size_of::<tokenward_reply>();
                (reply.failure, reply.status, reply.body) = (failure, status, view(body));
                (reply.headers, reply.headers_len) = (lines.as_ptr(), 1 + usize::from(chosen / 12 % 2 == 1));
                tokenward_step_reply(step, &reply, &self.now())
            }
        });
    }

    fn resume(&self, slot: usize) {
        // SAFETY: a live step.
        self.about(slot, |step| unsafe { tokenward_step_resume(step, &self.now()) });
    }

    fn register(&self, slot: usize, action: u8, argument: u8) {
        self.about(slot, |step| {
            let told = Box::into_raw(Box::new(Told { host: self, slot, action, argument }));
            self.registered.set(self.registered.get() + 1);
            // SAFETY: a live step; `told` is released where it is called.
            let result = unsafe { tokenward_step_on_ready(step, Some(on_ready), told.cast()) };
            use tokenward_result::{TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP};
            if [TOKENWARD_ALREADY_USED, TOKENWARD_WRONG_STEP].contains(&result) {
                self.registered.set(self.registered.get() - 1);
                // SAFETY: it is never called with these.
                drop(unsafe { Box::from_raw(told) });
            }
            result
        });
    }

    fn free(&self, slot: usize) {
        let step = self.steps[slot].replace(null_mut());
        // SAFETY: a live step, or NULL.
        unsafe { tokenward_step_free(step) };
    }

    fn look(&self, slot: usize) {
        let step = self.steps[slot].get();
        if !step.is_null() {
            views::step(step, self.busy[slot].get() > 0, self.told.get() as u8 ^ slot as u8);
        }
    }
}

pub struct World {
    host: Box<Host>,
}

impl World {
    pub fn new(chosen: u8) -> Self {
        let host = Box::<Host>::default();
        host.wall.set(1_700_000_000 * SECOND);
        host.mono.set(10_000 * SECOND);
        host.make(chosen);
        Self { host }
    }

    pub fn call(&mut self, input: &mut Input<'_>) {
        let host = &*self.host;
        let introspector = host.introspector.get();
        let slot = |input: &mut Input<'_>| input.below(STEPS);
        match input.byte() % 24 {
            0..=3 => host.begin(input.byte(), 0),
            4..=6 => host.reply(slot(input), input.byte(), 0),
            7 => host.reply(slot(input), 0, u32::from(input.byte() % 10)),
            8 | 9 => host.resume(slot(input)),
            10 | 15 => host.free(slot(input)),
            11 => {
                let by = input.choose(&MOVES);
                host.wall.set(host.wall.get().saturating_add(by));
                host.mono.set(host.mono.get().saturating_add(by));
            }
            12 => {
                let by = input.byte();
                let clock = if by / 16 % 2 == 0 { &host.wall } else { &host.mono };
                let distance = MOVES[usize::from(by) % 8];
                let now = clock.get();
                clock.set(if by / 8 % 2 == 0 { now.saturating_add(distance) } else { now.saturating_sub(distance) });
                if by > 250 {
                    clock.set(u64::MAX);
                }
            }
            13 => {
                let token = input.below(5);
                let mut forgotten = false;
                // SAFETY: a live introspector or NULL; the token lives during the call.
                let result = unsafe {
                    match [b"a", b"b", b"c", b"\xff"].get(token) {
                        Some(name) => {
                            tokenward_introspector_forget(introspector, name.as_ptr().cast(), 1, &mut forgotten)
                        }
                        None => tokenward_introspector_forget_all(introspector),
                    }
                };
                assert!(result != OK || !introspector.is_null());
            }
            14 => {
                let document = DOCUMENTS.0[input.below(CONFIGS.len())];
                let config = input.byte() % 2 == 0;
                // SAFETY: a live introspector or NULL, and a live document.
                unsafe {
                    if config {
                        tokenward_introspector_replace_config(introspector, document, null_mut());
                    } else {
                        tokenward_introspector_replace_consumers(introspector, document);
                    }
                }
            }
            16 => host.begin(input.byte(), input.byte()),
            17 => {
                let slot = slot(input);
                host.register(slot, input.byte(), input.byte());
            }
            18 => {
                let slot = slot(input);
                let tag = u64::from(input.byte());
                // SAFETY: a live step.
                host.about(slot, |step| unsafe { tokenward_step_set_tag(step, tag) });
            }
            19 => self.drain(),
            20 => {
                let mut snapshot = null_mut();
                // SAFETY: a live introspector or NULL.
                if unsafe { tokenward_snapshot_new(introspector, &mut snapshot) } == OK {
                    // SAFETY: it was given.
                    unsafe { views::snapshot(snapshot) };
                }
            }
            21 => self.text(input),
            22 => self.policy(input),
            _ => {
                host.introspector.set(null_mut());
                // SAFETY: a live introspector or NULL, outside of any callback.
                unsafe { tokenward_introspector_free(introspector) };
                let chosen = input.byte();
                if chosen % 4 != 3 {
                    host.make(chosen);
                }
            }
        }
    }

    /// Takes what is there for hosts that cannot be called back.
    fn drain(&self) {
        let introspector = self.host.introspector.get();
        // SAFETY: a live introspector or NULL; lines are the caller's.
        unsafe {
            let (mut line, mut tag) = (null_mut(), 0);
            while tokenward_next_log(introspector, &mut line) == OK {
                views::line(line);
                tokenward_line_free(line);
            }
            while tokenward_next_ready(introspector, &mut tag) == OK {}
        }
    }

    /// Bytes of the input as a document, as names, as numbers; later requests and replies hold them.
    fn text(&self, input: &mut Input<'_>) {
        let length = input.below(32);
        let text: Vec<u8> = (0..length).map(|_| input.byte()).collect();
        // SAFETY: text lives during the calls.
        unsafe {
            let _ = tokenward_is_managed(text.as_ptr().cast(), text.len());
            assert!(tokenward_is_managed(null(), 1), "what cannot be read counts as managed");
            let (introspector, policy) = (self.host.introspector.get(), self.host.policy.get());
            let is_lean = tokenward_is_lean(introspector, policy, text.as_ptr().cast(), text.len());
            assert!(!is_lean || !introspector.is_null());
            assert!(!tokenward_is_lean(introspector, policy, null(), 1), "all counts where the method cannot be read");
            let mut snapshot = null_mut();
            let numbers: Vec<u64> = text.iter().map(|byte| (*byte).into()).collect();
            if tokenward_snapshot_of_numbers(numbers.as_ptr(), numbers.len(), &mut snapshot) == OK {
                views::snapshot(snapshot);
            }
            let names_a_file = text.windows(4).any(|part| part == b"file");
            if !names_a_file && let Some(document) = document(&text) {
                views::document(document);
                tokenward_document_free(document);
            }
        }
        *self.host.claims.borrow_mut() = text;
    }

    fn policy(&self, input: &mut Input<'_>) {
        const POLICIES: [&[u8]; 4] =
            [br#"{"require":{"scopes":["read"]}}"#, br#"{"anonymous":"1"}"#, b"{\"a\":1}", b"\xff"];
        let json = input.choose(&POLICIES);
        let (mut policy, mut error) = (null_mut(), null_mut());
        let introspector = self.host.introspector.get();
        // SAFETY: a live introspector or NULL; what is freed was given, and no call is under way.
        unsafe {
            let result = tokenward_policy_new(introspector, json.as_ptr().cast(), json.len(), &mut policy, &mut error);
            if !error.is_null() {
                views::error(error);
            }
            if result == OK {
                tokenward_policy_free(self.host.policy.replace(policy));
            }
        }
    }

    /// Frees everything, steps last.
    pub fn end(self) {
        let host = &*self.host;
        self.drain();
        // SAFETY: live handles or NULL, outside of any callback.
        unsafe {
            tokenward_introspector_free(host.introspector.replace(null_mut()));
            tokenward_policy_free(host.policy.replace(null_mut()));
        }
        // Callbacks may begin and register until there is nothing left.
        for _ in 0..1000 {
            let Some(slot) = host.steps.iter().position(|step| !step.get().is_null()) else { break };
            host.free(slot);
        }
        assert!(host.steps.iter().all(|step| step.get().is_null()));
        assert_eq!(host.told.get(), host.registered.get(), "each function is called once");
        assert_eq!(host.released.get(), host.logs.get(), "each log is released once");
    }
}
