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

/// Makes keys. The prefix is one whole block of the hash, absorbed once.
#[derive(Clone)]
pub(crate) struct Keys {
    prefixed: Sha256,
    /// The same, as what hashing goes on from.
    state: [u32; 8],
    /// Method and path are part of the key.
    by_request: bool,
}

/// What SHA-256 begins with (FIPS 180-4 §5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

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
    ///
    /// Every request waits for it: the blocks are laid out here, which spares the copies of a hash that is fed piece by piece.
    #[inline]
    pub(crate) fn family(&self, token: &[u8]) -> Key {
        /// The bit behind the text and its length fit into the text's last block, or need another.
        const ROOM: usize = 64 - 9;

        let mut state = self.state;
        let (blocks, rest) = token.as_chunks::<64>();
        if !blocks.is_empty() {
            compress256(&mut state, blocks);
        }
        let mut last = [0; 64];
        if let Some((text, [end, ..])) = last.split_at_mut_checked(rest.len()) {
            text.copy_from_slice(rest);
            *end = 0x80;
        }
        if rest.len() > ROOM {
            compress256(&mut state, &[last]);
            last = [0; 64];
        }
        let bits = (64 + token.len() as u64) * 8;
        if let Some(length) = last.last_chunk_mut() {
            *length = bits.to_be_bytes();
        }
        compress256(&mut state, &[last]);
        let mut key = [0; 32];
        for (to, word) in key.as_chunks_mut().0.iter_mut().zip(state) {
            *to = word.to_be_bytes();
        }
        Key(key)
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
    fn a_key_is_the_hash_of_prefix_and_token() {
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(700).collect();
        for prefix in [[7; 64], std::array::from_fn(|n| n.to_le_bytes()[0])] {
            let keys = Keys::new(&prefix, false);
            for length in 0..text.len() {
                let token = &text[..length];
                let expected: [u8; 32] = Sha256::new_with_prefix(prefix).chain_update(token).finalize().into();
                assert_eq!(keys.family(token), Key(expected), "of {length} bytes");
                assert_eq!(keys.key(token, &Request::new("GET", "/")), Key(expected));
            }
        }
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
}
