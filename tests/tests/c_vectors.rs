//! Every vector, replayed through the C ABI: `extern "C"` functions, raw pointers, numbers.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{c_char, c_void};
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokenward::*;
use tokenward_tests::player::{self, Allowed, ClaimsOf, Host, Messages, Pairs, Seen, Time};
use tokenward_tests::vector::{self, Begin, Bytes, Vector};

const OK: tokenward_result = tokenward_result::TOKENWARD_OK;

/// Vectors that do not hold here, with the reason.
const NOT_HERE: &[(&str, &str)] =
    &[("consumers are not part of a bare configuration", "the C ABI reads documents, which may have consumers")];

fn main() {
    for (skipped, _) in NOT_HERE {
        assert!(vector::all().iter().any(|(_, vector)| vector.name == *skipped), "{skipped} is no vector");
    }
    let tests = vector::all()
        .into_iter()
        .filter(|(_, vector)| NOT_HERE.iter().all(|(skipped, _)| vector.name != *skipped))
        .map(|(area, vector)| {
            let name = format!("{area}: {}", vector.name);
            libtest_mimic::Trial::test(name, move || replay(&vector).map_err(Into::into))
        })
        .collect();
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Some vectors have an environment of their own, and a process has one.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests).exit();
}

fn replay(vector: &Vector) -> Result<(), String> {
    let document = match load(vector) {
        Ok(document) => document,
        Err(errors) => return player::compare_load(vector.load.as_ref(), Err(&errors), &[]),
    };
    let warnings = warnings(document);
    player::compare_load(vector.load.as_ref(), Ok(&warnings), &consumers(document))?;
    let said = Box::<Said>::default();
    // SAFETY: zeros are valid for it; the log lives longer than the introspector.
    let introspector = unsafe {
        let options = tokenward_options {
            struct_size: size_of::<tokenward_options>(),
            log: Some(log),
            log_userdata: std::ptr::from_ref(&*said).cast_mut().cast(),
            log_level: 4,
            ..zeroed()
        };
        let mut introspector = null_mut();
        assert_eq!(tokenward_introspector_new(document, &options, &mut introspector, null_mut()), OK);
        tokenward_document_free(document);
        introspector
    };
    let mut host = C { introspector, said, steps: HashMap::new(), woken: Arc::default() };
    player::play(vector, &mut host)
}

#[derive(Default)]
struct Said(Mutex<Vec<String>>);

unsafe extern "C" fn log(userdata: *mut c_void, line: *const tokenward_line) {
    // SAFETY: what it was registered with, and a live line.
    unsafe {
        let said = &*userdata.cast::<Said>();
        let reason = tokenward_line_reason(line);
        if reason != 0 && tokenward_line_level(line) as u32 <= tokenward_level::TOKENWARD_LEVEL_WARN as u32 {
            let name = text(|out| tokenward_reason_name(reason, out)).unwrap();
            said.0.lock().unwrap().push(String::from_utf8(name).unwrap());
        }
    }
}

/// Text that a function gives; none where it is absent.
fn text(get: impl FnOnce(*mut tokenward_str) -> tokenward_result) -> Option<Vec<u8>> {
    let mut out = tokenward_str { data: null(), len: usize::MAX };
    match get(&mut out) {
        tokenward_result::TOKENWARD_OK => Some(bytes(out)),
        tokenward_result::TOKENWARD_ABSENT => {
            assert_eq!(out.len, usize::MAX, "an output is written with OK alone");
            None
        }
        other => panic!("{other:?}"),
    }
}

fn bytes(view: tokenward_str) -> Vec<u8> {
    if view.len == 0 {
        return Vec::new();
    }
    // SAFETY: a view that lives.
    unsafe { std::slice::from_raw_parts(view.data.cast(), view.len) }.to_vec()
}

fn string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Lines that a function gives.
fn lines(get: impl FnOnce(*mut *const tokenward_header, *mut usize) -> tokenward_result) -> Pairs {
    let (mut array, mut count) = (null(), 0);
    assert_eq!(get(&mut array, &mut count), OK);
    let at = |index| {
        // SAFETY: below the count.
        let line: tokenward_header = unsafe { *array.add(index) };
        (bytes(line.name), bytes(line.value))
    };
    (0..count).map(at).collect()
}

fn view(bytes: &[u8]) -> tokenward_str {
    tokenward_str { data: bytes.as_ptr().cast(), len: bytes.len() }
}

const NONE: tokenward_str = tokenward_str { data: null(), len: 0 };

fn document(
    text: &str,
    consumers: Option<&str>,
    folder: &str,
    select: Option<&str>,
) -> Result<*mut tokenward_document, Vec<(String, String)>> {
    let optional = |text: Option<&str>| text.map_or(NONE, |text| view(text.as_bytes()));
    let source = tokenward_source {
        struct_size: size_of::<tokenward_source>(),
        text: view(text.as_bytes()),
        consumers: optional(consumers),
        folder: view(folder.as_bytes()),
        select: optional(select),
    };
    let (mut document, mut error) = (null_mut(), null_mut());
    // SAFETY: all of it lives.
    unsafe {
        match tokenward_document_new(&source, &mut document, &mut error) {
            tokenward_result::TOKENWARD_OK => Ok(document),
            tokenward_result::TOKENWARD_INVALID_CONFIG => {
                assert!(document.is_null(), "an output is written with OK alone");
                let count = tokenward_error_count(error);
                let problems = (0..count).map(|at| problem(|out| tokenward_error_at(error, at, out))).collect();
                assert!(!text_of_error(error).is_empty() && count > 0);
                tokenward_error_free(error);
                Err(problems)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn text_of_error(error: *const tokenward_error) -> Vec<u8> {
    // SAFETY: a live error.
    text(|out| unsafe { tokenward_error_message(error, out) }).unwrap()
}

fn problem(get: impl FnOnce(*mut tokenward_problem) -> tokenward_result) -> (String, String) {
    let mut problem = tokenward_problem { path: NONE, message: NONE };
    assert_eq!(get(&mut problem), OK);
    (string(bytes(problem.path)), string(bytes(problem.message)))
}

fn load(vector: &Vector) -> Result<*mut tokenward_document, Vec<(String, String)>> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("tokenward-c-vectors-{}-{number}", std::process::id()));
    for (name, content) in &vector.files {
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), &content.0).unwrap();
    }
    for (name, value) in &vector.env {
        // SAFETY: there is one thread.
        unsafe { std::env::set_var(name, value) };
    }
    let text = match (&vector.kong, &vector.document) {
        (Some(kong), None) => kong.clone(),
        (None, Some(document)) => document.get().to_owned(),
        _ => vector.config_text(),
    };
    let consumers = vector.consumers.as_ref().map(|consumers| consumers.get());
    let loaded = document(&text, consumers, folder.to_str().unwrap(), vector.select.as_deref());
    for name in vector.env.keys() {
        // SAFETY: there is one thread.
        unsafe { std::env::remove_var(name) };
    }
    loaded
}

fn warnings(document: *const tokenward_document) -> Vec<(String, String)> {
    // SAFETY: a live document.
    let count = unsafe { tokenward_document_warning_count(document) };
    let found: Vec<_> = (0..count)
        // SAFETY: below the count.
        .map(|at| problem(|out| unsafe { tokenward_document_warning_at(document, at, out) }))
        .collect();
    let _: &Messages = &found;
    found
}

fn consumers(document: *const tokenward_document) -> Vec<BTreeMap<String, Value>> {
    // SAFETY: a live document, and consumers below their count.
    unsafe {
        (0..tokenward_document_consumer_count(document))
            .map(|at| describe(tokenward_document_consumer_at(document, at)))
            .collect()
    }
}

/// # Safety
/// A live consumer.
unsafe fn describe(consumer: *const tokenward_consumer) -> BTreeMap<String, Value> {
    // SAFETY: the caller's promise.
    unsafe {
        let list =
            |get: unsafe extern "C" fn(*const tokenward_consumer, usize, *mut tokenward_str) -> tokenward_result| {
                (0..).map_while(|at| text(|out| get(consumer, at, out)).map(string)).collect::<Vec<_>>()
            };
        let members = [
            ("id", json!(text(|out| tokenward_consumer_id(consumer, out)).map(string))),
            ("username", json!(text(|out| tokenward_consumer_username(consumer, out)).map(string))),
            ("custom_id", json!(text(|out| tokenward_consumer_custom_id(consumer, out)).map(string))),
            ("tags", json!(list(tokenward_consumer_tag_at))),
            ("groups", json!(list(tokenward_consumer_group_at))),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

type Woken = Arc<Mutex<Vec<(String, bool)>>>;

/// The C ABI as the player sees it.
struct C {
    introspector: *mut tokenward_introspector,
    said: Box<Said>,
    steps: HashMap<String, *mut tokenward_step>,
    woken: Woken,
}

/// Steps outlive their introspector, so this order is the harder one.
impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: each is freed once.
        unsafe {
            tokenward_introspector_free(self.introspector);
            for step in self.steps.values() {
                tokenward_step_free(*step);
            }
        }
    }
}

/// What a wait's function is called with.
struct Waiting(String, Woken);

unsafe extern "C" fn ready(userdata: *mut c_void, ready: bool) {
    // SAFETY: from `Box::into_raw`, and called once.
    let waiting = unsafe { Box::from_raw(userdata.cast::<Waiting>()) };
    waiting.1.lock().unwrap().push((waiting.0.clone(), ready));
}

impl C {
    /// Keeps a step that is not done, and tells what it is.
    fn look(&mut self, name: &str, step: *mut tokenward_step) -> Seen {
        // SAFETY: a live step, and views that are read before it changes.
        unsafe {
            let outbound = tokenward_step_outbound(step);
            let wait = tokenward_step_wait(step);
            let decision = tokenward_step_decision(step);
            let given = [outbound.is_null(), wait.is_null(), decision.is_null()];
            assert_eq!(given.iter().filter(|null| !**null).count(), 1, "exactly one: {given:?}");
            if !outbound.is_null() {
                let micros = tokenward_outbound_time_left_us(outbound);
                assert!(tokenward_outbound_deadline_us(outbound) >= micros.min(1));
                self.steps.insert(name.to_owned(), step);
                return Seen::Introspect {
                    method: string(text(|out| tokenward_outbound_method(outbound, out)).unwrap()),
                    url: string(text(|out| tokenward_outbound_url(outbound, out)).unwrap()),
                    headers: lines(|array, count| tokenward_outbound_headers(outbound, array, count)),
                    body: text(|out| tokenward_outbound_body(outbound, out)).unwrap(),
                    time_left: std::time::Duration::from_micros(micros),
                };
            }
            if !wait.is_null() {
                let deadline = tokenward_wait_deadline_us(wait);
                self.steps.insert(name.to_owned(), step);
                return Seen::Wait { deadline: std::time::Duration::from_micros(deadline) };
            }
            decided(Decided(step), decision)
        }
    }

    /// A step that has just begun or gone on: a wait gets its function.
    fn parked(&mut self, name: &str, step: *mut tokenward_step) -> Seen {
        // SAFETY: a live step; the function takes the box.
        unsafe {
            if !tokenward_step_wait(step).is_null() {
                let waiting = Box::new(Waiting(name.to_owned(), Arc::clone(&self.woken)));
                assert_eq!(tokenward_step_on_ready(step, Some(ready), Box::into_raw(waiting).cast()), OK);
            }
        }
        self.look(name, step)
    }

    fn go_on(&mut self, name: &str, reply: &tokenward_reply, time: Time) -> Seen {
        let step = self.steps.remove(name).unwrap_or_else(|| panic!("{name} does not stand"));
        // SAFETY: a live step and reply.
        assert_eq!(unsafe { tokenward_step_reply(step, reply, &now(time)) }, OK);
        self.parked(name, step)
    }

    fn policy(&self, begin: &Begin) -> Result<*mut tokenward_policy, String> {
        let Some(json) = &begin.policy else { return Ok(null_mut()) };
        let json = json.get();
        let (mut policy, mut error) = (null_mut(), null_mut());
        // SAFETY: all of it lives.
        unsafe {
            match tokenward_policy_new(self.introspector, json.as_ptr().cast(), json.len(), &mut policy, &mut error) {
                tokenward_result::TOKENWARD_OK => Ok(policy),
                result => {
                    let message = string(text_of_error(error));
                    tokenward_error_free(error);
                    Err(format!("{result:?}: {message}"))
                }
            }
        }
    }
}

fn headers(pairs: &[(Bytes, Bytes)]) -> Vec<tokenward_header> {
    pairs.iter().map(|(name, value)| tokenward_header { name: view(&name.0), value: view(&value.0) }).collect()
}

fn request<R>(begin: &Begin, with_body: bool, then: impl FnOnce(&tokenward_request) -> R) -> R {
    let headers = headers(begin.headers.as_deref().unwrap_or_default());
    let trailers: Vec<tokenward_str> = begin.trailers.iter().flatten().map(|name| view(&name.0)).collect();
    let body = begin.body.as_ref().filter(|_| with_body).map_or(NONE, |body| view(&body.0));
    then(&tokenward_request {
        struct_size: size_of::<tokenward_request>(),
        method: view(begin.method.as_ref().map_or(b"GET", |method| &method.0)),
        target: view(begin.target.as_ref().map_or(b"/", |target| &target.0)),
        headers: headers.as_ptr(),
        headers_len: headers.len(),
        trailers: trailers.as_ptr(),
        trailers_len: trailers.len(),
        body,
    })
}

fn now(time: Time) -> tokenward_time {
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    tokenward_time { wall_us: micros(time.wall), monotonic_us: micros(time.mono) }
}

/// # Safety
/// A live decision, of this step.
unsafe fn decided(step: Decided, decision: *const tokenward_decision) -> Seen {
    // SAFETY: the caller's promise.
    unsafe {
        summary_agrees(decision);
        if !tokenward_decision_is_allow(decision) {
            let number = tokenward_decision_reason(decision);
            return Seen::Deny {
                reason: string(text(|out| tokenward_reason_name(number, out)).unwrap()),
                number: u16::try_from(number).unwrap(),
                status: u16::try_from(tokenward_decision_status(decision)).unwrap(),
                headers: lines(|array, count| tokenward_decision_refusal_headers(decision, array, count)),
                body: text(|out| tokenward_decision_refusal_body(decision, out)),
            };
        }
        let consumer = tokenward_decision_consumer(decision);
        let id = || string(text(|out| tokenward_consumer_id(consumer, out)).unwrap());
        let (mut names, mut count) = (null(), 0);
        assert_eq!(tokenward_decision_remove(decision, &mut names, &mut count), OK);
        let mut expires = 0;
        let has_expires = tokenward_decision_expires_us(decision, &mut expires) == OK;
        Seen::Allow(Allowed {
            source: match tokenward_decision_source(decision) {
                tokenward_decided_by::TOKENWARD_SOURCE_NONE => "none",
                tokenward_decided_by::TOKENWARD_SOURCE_ENDPOINT => "endpoint",
                tokenward_decided_by::TOKENWARD_SOURCE_CACHE => "cache",
                tokenward_decided_by::TOKENWARD_SOURCE_WAITING => "waiting",
            }
            .to_owned(),
            identity: match tokenward_decision_identity(decision) {
                tokenward_identity::TOKENWARD_IDENTITY_NONE => json!("none"),
                tokenward_identity::TOKENWARD_IDENTITY_UNMATCHED => json!("unmatched"),
                tokenward_identity::TOKENWARD_IDENTITY_CONSUMER => json!({ "consumer": id() }),
                tokenward_identity::TOKENWARD_IDENTITY_ANONYMOUS => json!({ "anonymous": id() }),
            },
            set: lines(|array, count| tokenward_decision_set(decision, array, count)),
            remove: (0..count).map(|at| bytes(*names.add(at))).collect(),
            target: text(|out| tokenward_decision_target(decision, out)),
            body: text(|out| tokenward_decision_body(decision, out)),
            response_headers: lines(|array, count| tokenward_decision_response_headers(decision, array, count)),
            expires: has_expires.then_some(expires as f64 / 1e6),
            claims: Box::new(step),
        })
    }
}

/// A step with a decision, freed with what was seen of it.
#[derive(Debug)]
struct Decided(*mut tokenward_step);

impl Drop for Decided {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { tokenward_step_free(self.0) }
    }
}

impl ClaimsOf for Decided {
    fn at(&self, pointer: &str) -> Option<Value> {
        let (data, len) = (pointer.as_ptr().cast::<c_char>(), pointer.len());
        // SAFETY: a live step.
        let json = text(|out| unsafe { tokenward_decision_claim_at(tokenward_step_decision(self.0), data, len, out) })?;
        Some(serde_json::from_slice(&json).expect("a claim is JSON"))
    }
}

impl Host for C {
    fn needs_body(&mut self, begin: &Begin) -> bool {
        let policy = self.policy(begin).unwrap();
        let mut needed = false;
        // SAFETY: all of it lives.
        unsafe {
            let result =
                request(begin, false, |request| tokenward_needs_body(self.introspector, policy, request, &mut needed));
            assert_eq!(result, OK);
            tokenward_policy_free(policy);
        }
        needed
    }

    fn begin(&mut self, begin: &Begin, time: Time) -> Result<Seen, String> {
        let policy = self.policy(begin)?;
        // SAFETY: all of it lives, and zeros are valid for a brief; a policy may go before its steps.
        let brief = unsafe {
            let mut brief: tokenward_brief = zeroed();
            let result = request(begin, true, |request| {
                let size = size_of::<tokenward_brief>();
                tokenward_begin_brief(self.introspector, policy, request, &now(time), &mut brief, size)
            });
            assert_eq!(result, OK);
            tokenward_policy_free(policy);
            brief_agrees(&brief);
            brief
        };
        Ok(self.parked(&begin.name, brief.step))
    }

    fn reply(&mut self, name: &str, status: u16, pairs: &[(Bytes, Bytes)], body: &[u8], time: Time) -> Seen {
        let headers = headers(pairs);
        let reply = tokenward_reply {
            struct_size: size_of::<tokenward_reply>(),
            failure: 0,
            status: status.into(),
            headers: headers.as_ptr(),
            headers_len: headers.len(),
            body: view(body),
        };
        self.go_on(name, &reply, time)
    }

    fn fail(&mut self, name: &str, failure: &str, time: Time) -> Seen {
        let names = ["connect", "dns", "tls", "closed", "timed_out", "protocol", "too_long", "cut_off"];
        let failure = u32::try_from(names.iter().position(|name| *name == failure).expect("a failure") + 1).unwrap();
        // SAFETY: zeros are valid for it.
        let reply = tokenward_reply { struct_size: size_of::<tokenward_reply>(), failure, ..unsafe { zeroed() } };
        self.go_on(name, &reply, time)
    }

    fn resume(&mut self, name: &str, time: Time) -> Seen {
        let step = self.steps.remove(name).unwrap_or_else(|| panic!("{name} does not stand"));
        // SAFETY: a live step.
        assert_eq!(unsafe { tokenward_step_resume(step, &now(time)) }, OK);
        self.parked(name, step)
    }

    fn abandon(&mut self, name: &str) {
        let step = self.steps.remove(name).unwrap_or_else(|| panic!("{name} does not stand"));
        // SAFETY: freed once.
        unsafe { tokenward_step_free(step) };
    }

    fn forget(&mut self, token: &[u8]) -> bool {
        let mut forgotten = false;
        // SAFETY: all of it lives.
        let result = unsafe {
            tokenward_introspector_forget(self.introspector, token.as_ptr().cast(), token.len(), &mut forgotten)
        };
        assert_eq!(result, OK);
        forgotten
    }

    fn forget_all(&mut self) {
        // SAFETY: a live introspector.
        assert_eq!(unsafe { tokenward_introspector_forget_all(self.introspector) }, OK);
    }

    fn replace_consumers(&mut self, json: &str) {
        let any = r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA=="}"#;
        let fresh = document(any, Some(json), "", None).unwrap();
        // SAFETY: both live, and the document is freed once.
        unsafe {
            assert_eq!(tokenward_introspector_replace_consumers(self.introspector, fresh), OK);
            tokenward_document_free(fresh);
        }
    }

    fn replace_config(&mut self, json: &str) {
        let fresh = document(json, None, "", None).unwrap();
        // SAFETY: both live, and the document is freed once.
        unsafe {
            assert_eq!(tokenward_introspector_replace_config(self.introspector, fresh, null_mut()), OK);
            tokenward_document_free(fresh);
        }
    }

    fn woken(&mut self) -> Vec<(String, bool)> {
        std::mem::take(&mut self.woken.lock().unwrap())
    }

    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said.0.lock().unwrap())
    }

    fn snapshot(&mut self) -> BTreeMap<String, Value> {
        let names = [
            "hits",
            "negative_hits",
            "misses",
            "waits",
            "introspections",
            "values_left_out",
            "bodies_not_searched",
            "allowed",
            "evictions",
            "entries",
            "negative_entries",
            "bytes",
            "in_flight",
        ];
        let mut snapshot = null_mut();
        // SAFETY: a live introspector, and a snapshot that is freed once.
        unsafe {
            assert_eq!(tokenward_snapshot_new(self.introspector, &mut snapshot), OK);
            let mut counters: BTreeMap<String, Value> = BTreeMap::new();
            for (number, name) in (0..).zip(names) {
                let mut value = 0;
                assert_eq!(tokenward_snapshot_counter(snapshot, number, &mut value), OK);
                counters.insert(name.to_owned(), json!(value));
            }
            let mut decisions = BTreeMap::from([("allow".to_owned(), counters["allowed"].clone())]);
            for number in 1100..1600 {
                let mut value = 0;
                if tokenward_snapshot_denied(snapshot, number, &mut value) == OK {
                    let name = string(text(|out| tokenward_reason_name(number, out)).unwrap());
                    decisions.insert(name, json!(value));
                }
            }
            counters.insert("decisions".to_owned(), json!(decisions));
            let prometheus = string(text(|out| tokenward_snapshot_prometheus(snapshot, out)).unwrap());
            assert!(prometheus.contains(&format!("tokenward_hits_total {}\n", counters["hits"])));
            tokenward_snapshot_free(snapshot);
            counters
        }
    }
}

/// What is said of a request that began is what is said one by one.
///
/// # Safety
/// Its step is alive.
unsafe fn brief_agrees(brief: &tokenward_brief) {
    // SAFETY: the caller's promise.
    unsafe {
        let decision = tokenward_step_decision(brief.step);
        assert_eq!(brief.decision, decision);
        assert_eq!(brief.allow == 1, tokenward_decision_is_allow(decision));
        assert_eq!(brief.identity, tokenward_decision_identity(decision) as u32);
        assert_eq!(brief.shared, tokenward_decision_shared(decision));
        let (mut shared, mut names, mut count) = (0, null(), 0);
        let alone = tokenward_decision_headers_alone(decision, &mut shared, &mut names, &mut count) == OK;
        assert_eq!(brief.headers_alone == 1, alone);
        let has_names = tokenward_decision_remove(decision, &mut names, &mut count) == OK;
        assert_eq!((brief.remove, brief.remove_len), if has_names { (names, count) } else { (null(), 0) });
    }
}

/// What is said at one look is what is said one by one.
unsafe fn summary_agrees(decision: *const tokenward_decision) {
    // SAFETY: zeros are valid for it, the decision is alive, and so are views of it.
    unsafe {
        let mut summary: tokenward_summary = zeroed();
        assert_eq!(tokenward_decision_summary(decision, &mut summary, size_of::<tokenward_summary>()), OK);
        let array = |headers, len| {
            lines(|array, count| {
                *array = headers;
                *count = len;
                OK
            })
        };
        let optional = |view: tokenward_str| (!view.data.is_null()).then(|| bytes(view));
        let allow = tokenward_decision_is_allow(decision);
        assert_eq!(summary.allow == 1, allow);
        assert_eq!(summary.source, tokenward_decision_source(decision) as u32);
        assert_eq!(summary.identity, tokenward_decision_identity(decision) as u32);
        assert_eq!(summary.reason, tokenward_decision_reason(decision));
        assert_eq!(summary.status, tokenward_decision_status(decision));
        let consumer = tokenward_decision_consumer(decision);
        let of = |get: unsafe extern "C" fn(_, _) -> _| {
            if consumer.is_null() { None } else { text(|out| get(consumer, out)) }
        };
        assert_eq!(optional(summary.consumer_id), of(tokenward_consumer_id));
        assert_eq!(optional(summary.consumer_username), of(tokenward_consumer_username));
        assert_eq!(optional(summary.consumer_custom_id), of(tokenward_consumer_custom_id));
        let answer = array(summary.headers, summary.headers_len);
        if allow {
            let (mut names, mut count) = (null(), 0);
            assert_eq!(tokenward_decision_remove(decision, &mut names, &mut count), OK);
            assert_eq!((summary.remove, summary.remove_len), (names, count));
            let set = array(summary.set, summary.set_len);
            assert_eq!(set, lines(|array, count| tokenward_decision_set(decision, array, count)));
            assert_eq!(answer, lines(|array, count| tokenward_decision_response_headers(decision, array, count)));
            assert_eq!(optional(summary.target), text(|out| tokenward_decision_target(decision, out)));
            assert_eq!(optional(summary.body), text(|out| tokenward_decision_body(decision, out)));
        } else {
            assert_eq!(answer, lines(|array, count| tokenward_decision_refusal_headers(decision, array, count)));
            assert_eq!(optional(summary.body), text(|out| tokenward_decision_refusal_body(decision, out)));
            assert_eq!((summary.remove_len, summary.set_len), (0, 0));
        }
    }
}
