//! The key under which an answer is remembered, and how it is made of a request.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::request::{Request, Target};

/// SHA-256 over a random prefix and the token. The raw token is not kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// The shard of this key; other bits than those of the tables within.
    pub(crate) fn shard(&self) -> usize {
        let [.., high, low] = self.0;
        usize::from(u16::from_be_bytes([high, low]))
    }

    /// Its hash for a table: its own bytes are as good a one as there is.
    pub(crate) fn hash64(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash64());
    }
}

#[derive(Default)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // INVARIANT: a key writes eight bytes as one number.
        debug_assert!(bytes.is_empty());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub(crate) type KeyHasher = BuildHasherDefault<FirstBytes>;

/// What SHA-256 starts from (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Makes keys. The prefix is one whole block of the hash, absorbed once.
#[derive(Clone)]
pub(crate) struct Keys {
    prefixed: Sha256,
    /// The same as the hash's own words, for tokens that are one block with what ends a message.
    state: [u32; 8],
    /// Method and path are part of the key.
    by_request: bool,
}

impl Keys {
    pub(crate) fn new(prefix: &[u8; 64], by_request: bool) -> Self {
        let mut state = INITIAL;
        compress256(&mut state, &[*prefix]);
        Self { prefixed: Sha256::new_with_prefix(prefix), state, by_request }
    }

    /// The key of a token, and of the request where its method and path are part of the question.
    #[inline]
    pub(crate) fn key(&self, token: &[u8], request: &Request<'_>) -> Key {
        if !self.by_request {
            return self.family(token);
        }
        let mut hash = self.prefixed.clone();
        let path = Target::parse(request.method, request.target).path;
        for part in [token, request.method, path.unwrap_or_default()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.update([u8::from(path.is_some())]);
        Key(hash.finalize().into())
    }

    /// The same for every request with this token: what `forget` looks for.
    #[inline]
    pub(crate) fn family(&self, token: &[u8]) -> Key {
        if let Some(key) = self.of_one_block(token) {
            return key;
        }
        let mut hash = self.prefixed.clone();
        hash.update(token);
        Key(hash.finalize().into())
    }

    /// The key of nearly every token: SHA-256 (FIPS 180-4, section 6.2) with what is known beforehand left out. None of a longer one.
    #[inline]
    fn of_one_block(&self, token: &[u8]) -> Option<Key> {
        const END: u8 = 0x80;
        let mut block = [0; 64];
        let (text, length) = block.split_last_chunk_mut::<8>()?;
        let (held, [end, ..]) = text.split_at_mut_checked(token.len())? else { return None };
        held.copy_from_slice(token);
        *end = END;
        *length = (8 * (64 + token.len() as u64)).to_be_bytes();
        let mut state = self.state;
        compress256(&mut state, &[block]);
        let mut key = [0; 32];
        for (bytes, word) in key.as_chunks_mut().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        Some(Key(key))
    }

    pub(crate) fn by_request(&self) -> bool {
        self.by_request
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_shards_and_tables() {
        use std::hash::BuildHasher as _;

        let keys = Keys::new(&[7; 64], false);
        let all: Vec<Key> = (0..1000_u32).map(|n| keys.family(&n.to_be_bytes())).collect();
        let shards: std::collections::HashSet<usize> = all.iter().map(|key| key.shard() % 32).collect();
        assert_eq!(shards.len(), 32);
        let hashes: std::collections::HashSet<u64> = all.iter().map(|key| KeyHasher::default().hash_one(key)).collect();
        assert_eq!(hashes.len(), 1000);
        assert_eq!(format!("{:?} {keys:?}", all[0]), "Key(..) Keys(..)");
    }

    #[test]
    fn keys_are_framed() {
        let keys = Keys::new(&[7; 64], true);
        let (a, b) = (Request::new("GET", "/xa"), Request::new("GET", "/x"));
        assert_ne!(keys.key(b"t", &a), keys.key(b"t", &b));
        assert_ne!(keys.key(b"ab", &Request::new("c", "/")), keys.key(b"a", &Request::new("bc", "/")));
        assert_eq!(keys.key(b"t", &Request::new("GET", "/x?1")), keys.key(b"t", &b));
        assert_eq!(keys.family(b"t"), keys.family(b"t"));
        assert_ne!(Keys::new(&[8; 64], false).family(b"t"), keys.family(b"t"));
        assert_ne!(keys.key(b"t", &Request::new("CONNECT", "h:1")), keys.key(b"t", &Request::new("CONNECT", "*")));
    }

    #[test]
    fn a_token_of_any_length_has_the_sha_256_of_the_prefix_and_itself() {
        let prefix = std::array::from_fn(|at| u8::try_from(at).unwrap() ^ 0xa5);
        let keys = Keys::new(&prefix, false);
        for length in 0..200_u8 {
            let token: Vec<u8> = (0..length).map(|at| at.wrapping_mul(37)).collect();
            let whole = Key(Sha256::new().chain_update(prefix).chain_update(&token).finalize().into());
            assert_eq!(keys.family(&token), whole, "{length}");
            assert_eq!(keys.key(&token, &Request::new("GET", "/")), whole, "{length}");
        }
    }
}
