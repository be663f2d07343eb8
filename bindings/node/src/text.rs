//! Strings that stand for bytes: each character is one, as in `IncomingMessage.rawHeaders`.

use napi::bindgen_prelude::{FromNapiValue, ToNapiValue, TypeName, ValidateNapiValue};
use napi::{Error, Result, Status, ValueType, check_status, sys};

/// Longer texts are no HTTP request: Node's own limit on a header section is 16 KiB unless it is raised.
const LONGEST: usize = 16 << 20;

/// Bytes that are a string of as many characters to JavaScript.
#[derive(Debug)]
pub struct Latin1(pub Vec<u8>);

impl From<&[u8]> for Latin1 {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Latin1 {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl TypeName for Latin1 {
    fn type_name() -> &'static str {
        "string"
    }

    fn value_type() -> ValueType {
        ValueType::String
    }
}

impl ValidateNapiValue for Latin1 {}

impl FromNapiValue for Latin1 {
    unsafe fn from_napi_value(env: sys::napi_env, value: sys::napi_value) -> Result<Self> {
        let mut scratch = Scratch::default();
        // SAFETY: the caller's promise, which is the same.
        unsafe { scratch.read_bytes(env, value)? };
        Ok(Self(scratch.bytes))
    }
}

impl ToNapiValue for Latin1 {
    unsafe fn to_napi_value(env: sys::napi_env, value: Self) -> Result<sys::napi_value> {
        let length = isize::try_from(value.0.len()).map_err(|_| Error::from_status(Status::InvalidArg))?;
        let mut string = std::ptr::null_mut();
        // SAFETY: the caller's `env`; the bytes are read during the call.
        check_status!(unsafe { sys::napi_create_string_latin1(env, value.0.as_ptr().cast(), length, &mut string) })?;
        Ok(string)
    }
}

/// Room for a text, used again and again. It may hold a token and is wiped by the next one only: as long as the
/// request itself is in the engine's memory, nothing is won by more.
#[derive(Default)]
pub(crate) struct Scratch {
    units: Vec<u16>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Divides parts that hold a NUL: it is no byte.
const DIVIDER: u16 = 0x100;

impl Scratch {
    /// The string's characters as bytes. An error if one is none, or if it is no string.
    ///
    /// # Safety
    /// As for [`read`](Self::read).
    #[inline]
    pub(crate) unsafe fn read_bytes(&mut self, env: sys::napi_env, value: sys::napi_value) -> Result<&[u8]> {
        // SAFETY: the caller's promise.
        let (bytes, dividers) = unsafe { self.read(env, value)? };
        if !dividers.is_empty() {
            return Err(Error::new(Status::InvalidArg, "a character of the request is not a byte"));
        }
        Ok(bytes)
    }

    /// The string's characters as bytes, and where its dividers are. An error if a character is neither, or if it is no string.
    ///
    /// # Safety
    /// `env` is that of the running call and `value` one of its values.
    #[inline]
    pub(crate) unsafe fn read(&mut self, env: sys::napi_env, value: sys::napi_value) -> Result<(&[u8], &[usize])> {
        if self.units.is_empty() {
            self.units.resize(4096, 0);
        }
        let mut length = 0;
        loop {
            let room = self.units.len();
            // SAFETY: the caller's promise; there is room for as many units.
            let status =
                unsafe { sys::napi_get_value_string_utf16(env, value, self.units.as_mut_ptr(), room, &mut length) };
            if status != sys::Status::napi_ok {
                return Err(Error::new(Status::StringExpected, "a string is expected"));
            }
            // One unit is the terminator's; a text that fills the others may have been cut off.
            if length + 1 < room {
                break;
            }
            if room > LONGEST {
                return Err(Error::new(Status::InvalidArg, "the request is too long"));
            }
            self.units.resize(room * 2, 0);
        }
        let units = self.units.get(..length).unwrap_or_default();
        let mut all = 0;
        self.bytes.clear();
        self.ends.clear();
        self.bytes.extend(units.iter().map(|&unit| {
            all |= unit;
            unit.to_le_bytes()[0]
        }));
        if all > 0xff {
            for (at, &unit) in units.iter().enumerate().filter(|(_, unit)| **unit > 0xff) {
                if unit != DIVIDER {
                    return Err(Error::new(Status::InvalidArg, "a character of the request is not a byte"));
                }
                self.ends.push(at);
            }
        }
        Ok((&self.bytes, &self.ends))
    }
}
