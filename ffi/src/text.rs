//! Text and header lines as they cross the boundary.

use std::ffi::c_char;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;

use tokenward_core::Header;

use crate::guard::Outcome;
use crate::result::tokenward_result;

/// Bytes with a length, borrowed, without a NUL at the end. `data` may be NULL where `len` is 0. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_str {
    /// The first byte.
    pub data: *const c_char,
    /// How many there are.
    pub len: usize,
}

/// A header line: name and value, without line ends. Frozen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tokenward_header {
    /// The name, in any case.
    pub name: tokenward_str,
    /// The value.
    pub value: tokenward_str,
}

impl tokenward_str {
    pub(crate) fn of(bytes: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        let bytes = bytes.as_ref();
        Self { data: bytes.as_ptr().cast(), len: bytes.len() }
    }
}

impl tokenward_header {
    pub(crate) fn of(name: &str, value: &str) -> Self {
        Self { name: tokenward_str::of(name), value: tokenward_str::of(value) }
    }
}

/// What was passed in is valid for as long as this lives: for a call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a>(PhantomData<&'a ()>);

impl<'a> Call<'a> {
    /// # Safety
    /// All strings and arrays that are read through it live, unchanged, during `'a`.
    pub(crate) unsafe fn new() -> Self {
        Self(PhantomData)
    }

    /// A string or array. NULL is fine where there is nothing to read.
    #[inline]
    pub(crate) fn slice<T>(self, data: *const T, len: usize) -> Outcome<&'a [T]> {
        if data.is_null() {
            return if len == 0 { Ok(&[]) } else { Err(tokenward_result::TOKENWARD_NULL_POINTER) };
        }
        let fits = len <= isize::MAX as usize / size_of::<T>().max(1);
        if !fits || !data.is_aligned() {
            return Err(tokenward_result::TOKENWARD_INVALID_ARGUMENT);
        }
        // SAFETY: not NULL, aligned, of a possible size, and alive by `new`'s promise.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    }

    #[inline]
    pub(crate) fn bytes(self, text: tokenward_str) -> Outcome<&'a [u8]> {
        self.slice(text.data.cast(), text.len)
    }

    #[inline]
    pub(crate) fn text(self, data: *const c_char, len: usize) -> Outcome<&'a str> {
        let bytes = self.slice(data.cast(), len)?;
        std::str::from_utf8(bytes).map_err(|_| tokenward_result::TOKENWARD_NOT_UTF8)
    }

    /// As [`text`](Self::text); none where there is no pointer.
    pub(crate) fn optional_text(self, text: tokenward_str) -> Outcome<Option<&'a str>> {
        let text_of = self.text(text.data, text.len)?;
        Ok((!text.data.is_null()).then_some(text_of))
    }

    #[inline]
    pub(crate) fn header(self, header: &tokenward_header) -> Outcome<Header<'a>> {
        Ok(Header { name: self.bytes(header.name)?, value: self.bytes(header.value)? })
    }
}

/// Header lines as the core sees them, without the heap: of nearly all requests.
pub(crate) struct Few<'a> {
    lines: [MaybeUninit<Header<'a>>; Few::MOST],
}

impl<'a> Few<'a> {
    pub(crate) const MOST: usize = 32;

    #[inline]
    pub(crate) fn new() -> Self {
        Self { lines: [const { MaybeUninit::uninit() }; Few::MOST] }
    }

    /// Of up to [`MOST`](Self::MOST); none of those behind is read.
    #[inline(always)]
    pub(crate) fn read(&mut self, call: Call<'a>, headers: &[tokenward_header]) -> Outcome<&[Header<'a>]> {
        let mut count = 0;
        for (line, header) in self.lines.iter_mut().zip(headers) {
            let tokenward_header { name, value } = *header;
            let plain = !name.data.is_null() && !value.data.is_null() && (name.len | value.len) <= isize::MAX as usize;
            line.write(if plain {
                // SAFETY: neither is NULL nor of an impossible size, and both live by `Call::new`'s promise.
                unsafe { Header { name: of_parts(name), value: of_parts(value) } }
            } else {
                call.header(header)?
            });
            count += 1;
        }
        // SAFETY: so many were written, from the first on.
        Ok(unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), count) })
    }
}

/// Header lines, however many, and names of trailers.
#[derive(Default)]
pub(crate) struct Many<'a> {
    lines: Vec<Header<'a>>,
    trailers: Vec<&'a [u8]>,
}

impl<'a> Many<'a> {
    #[cold]
    pub(crate) fn read(
        &mut self,
        call: Call<'a>,
        headers: &[tokenward_header],
        trailers: &[tokenward_str],
    ) -> Outcome<(&[Header<'a>], &[&'a [u8]])> {
        for header in headers {
            self.lines.push(call.header(header)?);
        }
        for name in trailers {
            self.trailers.push(call.bytes(*name)?);
        }
        Ok((&self.lines, &self.trailers))
    }
}

/// # Safety
/// Not NULL, of a possible size, and alive during `'a`.
#[inline]
unsafe fn of_parts<'a>(text: tokenward_str) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(text.data.cast(), text.len) }
}

/// An array that C looks at: its first element, or NULL where there is none.
pub(crate) fn first<T>(all: &[T]) -> *const T {
    if all.is_empty() { ptr::null() } else { all.as_ptr() }
}
