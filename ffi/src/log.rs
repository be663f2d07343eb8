//! Log lines: to a function of the host's, or kept until the host asks for them.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokenward_core::{Level, Log, Record};

use crate::guard::{Out, Outcome, borrow, give, guard, guard_or, take};
use crate::introspector::{tokenward_introspector, tokenward_options};
use crate::ready::at_once;
use crate::result::tokenward_result;
use crate::text::{first, tokenward_header, tokenward_str};

/// How urgent a line is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum tokenward_level {
    /// Somebody has to act: the endpoint refuses us, a setting names nobody.
    TOKENWARD_LEVEL_ERROR = 1,
    /// The authorization server failed, or a setting is probably not meant.
    TOKENWARD_LEVEL_WARN = 2,
    /// Configuration and consumers were replaced.
    TOKENWARD_LEVEL_INFO = 3,
    /// Single requests that were denied.
    TOKENWARD_LEVEL_DEBUG = 4,
}

/// Takes a line, on whichever thread handles a request. The line lives for the call. The function may call Tokenward, but not free the
/// introspector, policy or document that the call was given which it runs inside of; a step it may free. It must not unwind (no
/// exception, no longjmp).
pub type tokenward_log_fn = Option<unsafe extern "C" fn(userdata: *mut c_void, line: *const tokenward_line)>;

/// Releases what a host gave.
pub type tokenward_release_fn = Option<unsafe extern "C" fn(userdata: *mut c_void)>;

/// One log line. Nothing in it comes raw from a client or the authorization server, and no secret is in it; a token appears as the
/// first 8 hex digits of its SHA-256.
pub struct tokenward_line {
    level: Level,
    reason: u32,
    message: Box<str>,
    fields: Box<[(&'static str, String)]>,
    /// Views into `fields`.
    views: Box<[tokenward_header]>,
    text: Box<str>,
}

// SAFETY: `views` points into `fields` of the same value, which never changes.
unsafe impl Send for tokenward_line {}

impl tokenward_line {
    fn of(record: &Record<'_>) -> Self {
        let fields: Box<[_]> = record.fields.into();
        let views = fields.iter().map(|(key, value)| tokenward_header::of(key, value)).collect();
        Self {
            level: record.level,
            reason: record.reason.map_or(0, |reason| u32::from(reason.number())),
            message: record.message.into(),
            views,
            fields,
            text: record.to_string().into(),
        }
    }
}

/// Lines for a host that cannot be called back, the oldest first, and how many are kept at most.
pub(crate) struct Mailbox {
    lines: Mutex<VecDeque<tokenward_line>>,
    capacity: usize,
}

impl Mailbox {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { lines: Mutex::default(), capacity }
    }

    fn keep(&self, line: tokenward_line) {
        let mut lines = self.lines.lock();
        let oldest = if lines.len() >= self.capacity { lines.pop_front() } else { None };
        lines.push_back(line);
        drop(lines);
        drop(oldest);
    }
}

/// The host's function, and what it is called with.
struct Target {
    call: tokenward_log_fn,
    userdata: *mut c_void,
    release: tokenward_release_fn,
    /// Set once the introspector exists: until then `userdata` is the caller's.
    owned: Arc<AtomicBool>,
}

// SAFETY: the header says that the function is called from any thread, and its userdata goes with it.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Drop for Target {
    fn drop(&mut self) {
        if self.owned.load(Ordering::Acquire)
            && let Some(release) = self.release
        {
            // SAFETY: the host's function with the host's argument, once, after the last line.
            at_once(|| unsafe { release(self.userdata) });
        }
    }
}

/// Where the core's lines go.
pub(crate) struct Sink {
    target: Target,
    mailbox: Arc<Mailbox>,
    most: Level,
}

impl Sink {
    /// The flag, once set, takes the userdata over.
    pub(crate) fn of(options: &tokenward_options, mailbox: &Arc<Mailbox>) -> Outcome<(Self, Arc<AtomicBool>)> {
        let most = match options.log_level {
            0 | 3 => Level::Info,
            1 => Level::Error,
            2 => Level::Warn,
            4 => Level::Debug,
            _ => return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT),
        };
        let owned = Arc::new(AtomicBool::new(false));
        let target = Target {
            call: options.log,
            userdata: options.log_userdata,
            release: options.log_release,
            owned: Arc::clone(&owned),
        };
        Ok((Self { target, mailbox: Arc::clone(mailbox), most }, owned))
    }
}

impl Log for Sink {
    fn log(&self, record: &Record<'_>) {
        let line = tokenward_line::of(record);
        if let Some(call) = self.target.call {
            // SAFETY: the host's function with the host's argument, and a line that lives for the call.
            at_once(|| unsafe { call(self.target.userdata, &line) });
        } else if self.mailbox.capacity > 0 {
            self.mailbox.keep(line);
        }
    }

    fn is_enabled(&self, level: Level) -> bool {
        level <= self.most && (self.target.call.is_some() || self.mailbox.capacity > 0)
    }
}

/// Takes the oldest log line that was kept (`log_lines` of the options).
///
/// introspector: the introspector.
/// line: where the line goes; free it with `tokenward_line_free`.
///
/// Returns: TOKENWARD_OK; TOKENWARD_ABSENT if there is none.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_next_log(
    introspector: *const tokenward_introspector,
    line: *mut *mut tokenward_line,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (introspector, line) = unsafe { (borrow(introspector)?, Out::new(line)?) };
        let next = introspector.mailbox.lines.lock().pop_front();
        line.set(give(next.ok_or(tokenward_result::TOKENWARD_ABSENT)?));
        Ok(())
    })
}

/// How urgent a line is.
///
/// line: the line; NULL reads as TOKENWARD_LEVEL_ERROR.
///
/// Returns: the level.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_level(line: *const tokenward_line) -> tokenward_level {
    guard_or(tokenward_level::TOKENWARD_LEVEL_ERROR, || {
        // SAFETY: the header's rule for handles.
        match unsafe { borrow(line) }.map(|line| line.level) {
            Ok(Level::Error) | Err(_) => tokenward_level::TOKENWARD_LEVEL_ERROR,
            Ok(Level::Warn) => tokenward_level::TOKENWARD_LEVEL_WARN,
            Ok(Level::Info) => tokenward_level::TOKENWARD_LEVEL_INFO,
            Ok(Level::Debug) => tokenward_level::TOKENWARD_LEVEL_DEBUG,
        }
    })
}

/// What a line is about, if that is a reason to deny.
///
/// line: the line; NULL is about none.
///
/// Returns: a number of `tokenward_reason`, or 0.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_reason(line: *const tokenward_line) -> u32 {
    // SAFETY: the header's rule for handles.
    guard_or(0, || unsafe { borrow(line) }.map_or(0, |line| line.reason))
}

/// The line's fixed words, without reason and fields.
///
/// line: the line.
/// message: where the words go; they live as long as the line.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_message(
    line: *const tokenward_line,
    message: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (line, message) = unsafe { (borrow(line)?, Out::new(message)?) };
        message.set(tokenward_str::of(&*line.message));
        Ok(())
    })
}

/// What is particular about a line: pairs such as `status` and `503`.
///
/// line: the line.
/// fields: where the array goes; it lives as long as the line.
/// count: how many there are.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_fields(
    line: *const tokenward_line,
    fields: *mut *const tokenward_header,
    count: *mut usize,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (line, fields, count) = unsafe { (borrow(line)?, Out::new(fields)?, Out::new(count)?) };
        debug_assert_eq!(line.views.len(), line.fields.len());
        fields.set(first(&line.views));
        count.set(line.views.len());
        Ok(())
    })
}

/// The whole line: `message reason=... key=value ...`.
///
/// line: the line.
/// text: where the text goes; it lives as long as the line.
///
/// Returns: TOKENWARD_OK, or TOKENWARD_NULL_POINTER.
///
/// Threads: any, also at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_text(
    line: *const tokenward_line,
    text: *mut tokenward_str,
) -> tokenward_result {
    guard(|| {
        // SAFETY: the header's rules for handles and outputs.
        let (line, text) = unsafe { (borrow(line)?, Out::new(text)?) };
        text.set(tokenward_str::of(&*line.text));
        Ok(())
    })
}

/// Frees a line of `tokenward_next_log`. A line that a log function was given is not the host's to free.
///
/// line: the line, or NULL.
///
/// Threads: any, while no other uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tokenward_line_free(line: *mut tokenward_line) {
    // SAFETY: the header's rule for freeing.
    unsafe { take(line) }
}
