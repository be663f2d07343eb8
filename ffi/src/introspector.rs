//! Documents, introspectors, and further policies.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokenward_core::{Config, Consumer, Consumers, Introspector, Loader, Policy, Problem, TlsRoots};

use crate::guard::{Out, borrow, give, guard, guard_or, optional, take};
use crate::log::{Mailbox, Sink, tokenward_log_fn, tokenward_release_fn};
use crate::ready::ReadyTags;
use crate::result::{ErrorOut, tokenward_error, tokenward_problem, tokenward_result};
use crate::sized::{Grows, sized};
use crate::text::{Call, tokenward_str};

/// A configuration and its consumers, read and found valid.
pub struct tokenward_document {
    config: Config,
    consumers: Consumers,
    warnings: Vec<Problem>,
}

/// How a document is read. Set all of it to zero, then `struct_size` to `sizeof(tokenward_source)`, then `text` and what there is of the
/// rest. It grows at the end only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_source {
    /// `sizeof(tokenward_source)`.
    pub struct_size: usize,
    /// A Tokenward configuration in JSON, which may have an extra member `consumers`, or a Kong declarative file in YAML or JSON.
    pub text: tokenward_str,
    /// A JSON array of consumers, in place of those of `text`; `data` NULL: those of `text`.
    pub consumers: tokenward_str,
    /// The folder that relative paths in `text` are relative to; `data` NULL: the current one.
    pub folder: tokenward_str,
    /// `route=NAME` or `service=NAME`: which of several plugins of a Kong file; `data` NULL: the only one.
    pub select: tokenward_str,
}

// SAFETY: `repr(C)`, the size first, and numbers and pointers.
unsafe impl Grows for tokenward_source {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// Decides about requests: one endpoint, its caches, its calls under way, and a directory of consumers.
pub struct tokenward_introspector {
    pub(crate) core: Introspector,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) tags: Arc<ReadyTags>,
}

/// How an introspector is made. Set all of it to zero, then `struct_size` to `sizeof(tokenward_options)`, then what is wanted. It grows
/// at the end only.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_options {
    /// `sizeof(tokenward_options)`.
    pub struct_size: usize,
    /// Takes log lines; NULL: none.
    pub log: tokenward_log_fn,
    /// What `log` and `log_release` are called with.
    pub log_userdata: *mut c_void,
    /// Called once, after the last line: when the introspector and every step of it that stands at a call or a wait are gone (a step that
    /// has its decision needs it no more), inside of the call that ended the last; NULL: nothing. Not called if no introspector was made.
    pub log_release: tokenward_release_fn,
    /// Lines up to this `tokenward_level` are made; 0: up to TOKENWARD_LEVEL_INFO.
    pub log_level: u32,
    /// Where `log` is NULL: how many lines are kept for `tokenward_next_log`; of more, the oldest go.
    pub log_lines: u32,
}

// SAFETY: `repr(C)`, the size first, and numbers, pointers and optional functions.
unsafe impl Grows for tokenward_options {
    const SIZES: &'static [usize] = &[size_of::<Self>()];
}

/// Places, requirements, headers and refusals of some of the requests, over the introspector's one cache.
pub struct tokenward_policy {
    pub(crate) core: Policy,
}

/// A consumer of the gateway. Seen through others, never freed.
pub struct tokenward_consumer {
    /// In truth the core's `Consumer`: only pointers to this type exist.
    _opaque: (),
}

impl tokenward_consumer {
    pub(crate) fn of(consumer: &Consumer) -> *const Self {
        std::ptr::from_ref(consumer).cast()
    }
}

/// Reads and checks a configuration and its consumers. Secrets by environment and file are read now.
///
/// source: the text, and how it is read.
/// document: where the document goes; free it with `tokenward_document_free`.
/// error: where everything that is wrong goes, to be freed with `tokenward_error_free`; written with TOKENWARD_INVALID_CONFIG alone. May
/// be NULL.
///
/// Returns: TOKENWARD_OK, TOKENWARD_INVALID_CONFIG, or what is wrong with an argument.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_new(
    source: *const tokenward_source,
    document: *mut *mut tokenward_document,
    error: *mut *mut tokenward_error,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for structs, strings and outputs.
        let (source, document, error, call) =
            unsafe { (sized(source)?, Out::new(document)?, ErrorOut::new(error), Call::new()) };
        let text = call.text(source.text.data, source.text.len)?;
        let consumers = call.optional_text(source.consumers)?;
        let mut loader = Loader::new();
        if let Some(folder) = call.optional_text(source.folder)? {
            loader = loader.folder(folder);
        }
        if let Some(select) = call.optional_text(source.select)? {
            loader = loader.select(select);
        }
        let loaded = loader.text(text).and_then(|loaded| {
            let (config, own) = loaded.into_parts();
            let consumers = consumers.map_or(Ok(own), Consumers::from_json)?;
            let warnings = config.warnings_with(&consumers);
            Ok(tokenward_document { config, consumers, warnings })
        });
        document.set(give(error.config(loaded)?));
        Ok(())
    })
}

/// How many things are allowed in a document but probably not meant.
///
/// document: the document; NULL has none.
///
/// Returns: the number.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_warning_count(document: *const tokenward_document) -> usize {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { borrow(document) }.map_or(0, |document| document.warnings.len()))
}

/// One thing that is allowed in a document but probably not meant. An introspector logs them, too.
///
/// document: the document.
/// index: from 0, below `tokenward_document_warning_count`.
/// problem: where it goes; its text lives as long as the document.
///
/// Returns: TOKENWARD_OK; TOKENWARD_INVALID_ARGUMENT beyond the last.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_warning_at(
    document: *const tokenward_document,
    index: usize,
    problem: *mut tokenward_problem,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (document, problem) = unsafe { (borrow(document)?, Out::new(problem)?) };
        let found = document.warnings.get(index).ok_or(tokenward_result::TOKENWARD_INVALID_ARGUMENT)?;
        problem.set(tokenward_problem::of(found));
        Ok(())
    })
}

/// How many consumers a document has.
///
/// document: the document; NULL has none.
///
/// Returns: the number.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_consumer_count(document: *const tokenward_document) -> usize {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { borrow(document) }.map_or(0, |document| document.consumers.len()))
}

/// One consumer of a document, in constant time.
///
/// document: the document.
/// index: from 0, below `tokenward_document_consumer_count`.
///
/// Returns: the consumer, which lives as long as the document; NULL beyond the last.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_consumer_at(
    document: *const tokenward_document,
    index: usize,
) -> *const tokenward_consumer {
    guard_or(std::ptr::null(), || {
        // SAFETY: the header's rule for handles.
        let document = unsafe { optional(document) };
        let found = document.and_then(|document| document.consumers.at(index));
        found.map_or(std::ptr::null(), |consumer| tokenward_consumer::of(consumer))
    })
}

/// The endpoint's URL: whom a host that makes the calls itself will talk to. Its query counts as a secret: not for logs.
///
/// document: the document.
/// url: where the URL goes; it lives as long as the document.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_introspection_url(
    document: *const tokenward_document,
    url: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (document, url) = unsafe { (borrow(document)?, Out::new(url)?) };
        url.set(tokenward_str::of(document.config.introspection_url()));
        Ok(())
    })
}

/// The file of certificate authorities that vouch for the endpoint. A host that makes the calls itself must honour it.
///
/// document: the document.
/// path: where the file's path goes; it lives as long as the document.
/// pem: where the file's content goes, as it was when the document was read; it lives as long as the document.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT where it is the system's authorities that vouch.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_tls_roots(
    document: *const tokenward_document,
    path: *mut tokenward_str,
    pem: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (document, path, pem) = unsafe { (borrow(document)?, Out::new(path)?, Out::new(pem)?) };
        let TlsRoots::File { path: file, pem: content } = document.config.tls_roots() else {
            return Err(tokenward_result::TOKENWARD_ABSENT);
        };
        path.set(tokenward_str::of(file.as_os_str().as_encoded_bytes()));
        pem.set(tokenward_str::of(content.as_deref().unwrap_or_default()));
        Ok(())
    })
}

/// How long an idle connection to the endpoint is kept.
///
/// document: the document; NULL reads as 0.
///
/// Returns: microseconds.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_keepalive_us(document: *const tokenward_document) -> u64 {
    guard_or(0, || {
        // SAFETY: the header's rule for handles.
        let keepalive = unsafe { optional(document) }.map(|document| document.config.keepalive());
        keepalive.map_or(0, |keepalive| u64::try_from(keepalive.as_micros()).unwrap_or(u64::MAX))
    })
}

/// The time that one request may spend on introspection, waiting and retries included.
///
/// document: the document; NULL reads as 0.
///
/// Returns: microseconds.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_timeout_us(document: *const tokenward_document) -> u64 {
    guard_or(0, || {
        // SAFETY: the header's rule for handles.
        let timeout = unsafe { optional(document) }.map(|document| document.config.timeout());
        timeout.map_or(0, |timeout| u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX))
    })
}

/// The longest reply of the endpoint that is read. A host stops beyond it and says TOKENWARD_FAILURE_TOO_LONG.
///
/// document: the document; NULL reads as 0.
///
/// Returns: bytes.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_reply_bytes(document: *const tokenward_document) -> usize {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { optional(document) }.map_or(0, |document| document.config.reply_bytes()))
}

/// How many introspections may be under way at once.
///
/// document: the document; NULL reads as 0.
///
/// Returns: the number.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_concurrent_introspections(document: *const tokenward_document) -> usize {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { optional(document) }.map_or(0, |document| document.config.concurrent_introspections()))
}

/// Frees a document. Introspectors made of it stay.
///
/// document: the document, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_document_free(document: *mut tokenward_document) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(document) }
}

/// A consumer's id, unique in its directory.
///
/// consumer: the consumer.
/// id: where the id goes; it lives as long as what the consumer was seen through.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_consumer_id(
    consumer: *const tokenward_consumer,
    id: *mut tokenward_str,
) -> tokenward_result {
    // SAFETY: the header's rules for handles and outputs.
    unsafe { of_consumer(consumer, id, |consumer| Some(consumer.id())) }
}

/// A consumer's username, unique in its directory.
///
/// consumer: the consumer.
/// username: where the username goes; it lives as long as what the consumer was seen through.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT if it has none.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_consumer_username(
    consumer: *const tokenward_consumer,
    username: *mut tokenward_str,
) -> tokenward_result {
    // SAFETY: the header's rules for handles and outputs.
    unsafe { of_consumer(consumer, username, Consumer::username) }
}

/// A consumer's id in the host's own terms, unique in its directory.
///
/// consumer: the consumer.
/// custom_id: where the id goes; it lives as long as what the consumer was seen through.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT if it has none.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_consumer_custom_id(
    consumer: *const tokenward_consumer,
    custom_id: *mut tokenward_str,
) -> tokenward_result {
    // SAFETY: the header's rules for handles and outputs.
    unsafe { of_consumer(consumer, custom_id, Consumer::custom_id) }
}

/// One of a consumer's tags.
///
/// consumer: the consumer.
/// index: from 0, until TOKENWARD_ABSENT.
/// tag: where the tag goes; it lives as long as what the consumer was seen through.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_consumer_tag_at(
    consumer: *const tokenward_consumer,
    index: usize,
    tag: *mut tokenward_str,
) -> tokenward_result {
    // SAFETY: the header's rules for handles and outputs.
    unsafe { of_consumer(consumer, tag, |consumer| consumer.tags().nth(index)) }
}

/// One of a consumer's groups.
///
/// consumer: the consumer.
/// index: from 0, until TOKENWARD_ABSENT.
/// group: where the group goes; it lives as long as what the consumer was seen through.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT beyond the last.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_consumer_group_at(
    consumer: *const tokenward_consumer,
    index: usize,
    group: *mut tokenward_str,
) -> tokenward_result {
    // SAFETY: the header's rules for handles and outputs.
    unsafe { of_consumer(consumer, group, |consumer| consumer.groups().nth(index)) }
}

/// # Safety
/// As for every entry.
unsafe fn of_consumer(
    consumer: *const tokenward_consumer,
    text: *mut tokenward_str,
    part: impl for<'c> FnOnce(&'c Consumer) -> Option<&'c str>,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the caller's promise.
        let (consumer, text) = unsafe { (borrow(consumer.cast::<Consumer>())?, Out::new(text)?) };
        text.set(tokenward_str::of(part(consumer).ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// Makes an introspector. After a fork, each process makes its own.
///
/// document: the configuration and the consumers; it may be freed afterwards.
/// options: where log lines go; NULL: nowhere.
/// introspector: where the introspector goes; free it with `tokenward_introspector_free`.
/// error: where the cause goes, to be freed with `tokenward_error_free`; written with TOKENWARD_SYSTEM alone. May be NULL.
///
/// Returns: TOKENWARD_OK, TOKENWARD_SYSTEM, or what is wrong with an argument.
///
/// Threads: any.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_new(
    document: *const tokenward_document,
    options: *const tokenward_options,
    introspector: *mut *mut tokenward_introspector,
    error: *mut *mut tokenward_error,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, structs and outputs.
        let (document, options, introspector, error) = unsafe {
            (
                borrow(document)?,
                (!options.is_null()).then(|| sized(options)).transpose()?,
                Out::new(introspector)?,
                ErrorOut::new(error),
            )
        };
        let mut builder = Introspector::builder(document.config.clone(), document.consumers.clone());
        let mut mailbox = Arc::new(Mailbox::new(0));
        let mut owned = None;
        if let Some(options) = options {
            mailbox = Arc::new(Mailbox::new(options.log_lines as usize));
            let (sink, flag) = Sink::of(&options, &mailbox)?;
            builder = builder.log(sink);
            owned = Some(flag);
        }
        let core = error.build(builder.build())?;
        if let Some(owned) = owned {
            owned.store(true, Ordering::Release);
        }
        introspector.set(give(tokenward_introspector { core, mailbox, tags: Arc::default() }));
        Ok(())
    })
}

/// Replaces the directory of consumers at once, for every decision from now on.
///
/// introspector: the introspector.
/// document: whose consumers; it may be freed afterwards.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_replace_consumers(
    introspector: *const tokenward_introspector,
    document: *const tokenward_document,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rule for handles.
        let (introspector, document) = unsafe { (borrow(introspector)?, borrow(document)?) };
        introspector.core.replace_consumers(document.consumers.clone());
        Ok(())
    })
}

/// Replaces the configuration, and not the consumers. Remembered answers are kept if URL, credentials, parameters, headers, hint and
/// `introspect_request` are the same. Policies made before stay as they are.
///
/// introspector: the introspector.
/// document: whose configuration; it may be freed afterwards.
/// error: as for `tokenward_introspector_new`, to be freed with `tokenward_error_free`; the old configuration then stays. May be NULL.
///
/// Returns: TOKENWARD_OK, TOKENWARD_SYSTEM, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_replace_config(
    introspector: *const tokenward_introspector,
    document: *const tokenward_document,
    error: *mut *mut tokenward_error,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (introspector, document, error) =
            unsafe { (borrow(introspector)?, borrow(document)?, ErrorOut::new(error)) };
        error.build(introspector.core.replace_config(document.config.clone()))
    })
}

/// Forgets what is remembered about a token, for every method and path. A request that begins afterwards asks anew.
///
/// introspector: the introspector.
/// token, token_len: the token.
/// forgotten: where it goes whether there was something. May be NULL.
///
/// Returns: TOKENWARD_OK, or what is wrong with an argument.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_forget(
    introspector: *const tokenward_introspector,
    token: *const c_char,
    token_len: usize,
    forgotten: *mut bool,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let (introspector, call, forgotten) = unsafe { (borrow(introspector)?, Call::new(), Out::new(forgotten)) };
        let was = introspector.core.forget(call.text(token, token_len)?);
        if let Ok(forgotten) = forgotten {
            forgotten.set(was);
        }
        Ok(())
    })
}

/// Forgets everything that is remembered about tokens.
///
/// introspector: the introspector.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_forget_all(
    introspector: *const tokenward_introspector,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rule for handles.
        unsafe { borrow(introspector) }?.core.forget_all();
        Ok(())
    })
}

/// How much of a request's body is read at most.
///
/// introspector: the introspector; NULL reads as 0.
///
/// Returns: bytes.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_body_bytes(introspector: *const tokenward_introspector) -> usize {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { optional(introspector) }.map_or(0, |introspector| introspector.core.body_bytes()))
}

/// Takes the tag of a wait that can go on (`tokenward_step_set_tag`).
///
/// introspector: the introspector.
/// tag: where the tag goes. Where several threads use the introspector, another one may have resumed or freed its step since.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT if there is none.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_next_ready(
    introspector: *const tokenward_introspector,
    tag: *mut u64,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (introspector, tag) = unsafe { (borrow(introspector)?, Out::new(tag)?) };
        tag.set(introspector.tags.next().ok_or(tokenward_result::TOKENWARD_ABSENT)?);
        Ok(())
    })
}

/// Frees an introspector. Steps, policies and snapshots of it stay, and go on working.
///
/// introspector: the introspector, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_introspector_free(introspector: *mut tokenward_introspector) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(introspector) }
}

/// Makes a further policy over the introspector's cache: for a route that wants other scopes, say.
///
/// introspector: the introspector.
/// json, json_len: an object of policy fields; those that it does not give are those of the configuration of now.
/// policy: where the policy goes; free it with `tokenward_policy_free`.
/// error: where everything that is wrong goes, to be freed with `tokenward_error_free`; written with TOKENWARD_INVALID_CONFIG alone. May
/// be NULL.
///
/// Returns: TOKENWARD_OK, TOKENWARD_INVALID_CONFIG, or what is wrong with an argument.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_policy_new(
    introspector: *const tokenward_introspector,
    json: *const c_char,
    json_len: usize,
    policy: *mut *mut tokenward_policy,
    error: *mut *mut tokenward_error,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles, strings and outputs.
        let (introspector, call, policy, error) =
            unsafe { (borrow(introspector)?, Call::new(), Out::new(policy)?, ErrorOut::new(error)) };
        let core = error.config(introspector.core.policy(call.text(json, json_len)?))?;
        policy.set(give(tokenward_policy { core }));
        Ok(())
    })
}

/// Frees a policy. Steps begun by it stay.
///
/// policy: the policy, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_policy_free(policy: *mut tokenward_policy) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(policy) }
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<tokenward_introspector>();
    shared::<tokenward_document>();
    shared::<tokenward_policy>();
    shared::<tokenward_error>();
};
