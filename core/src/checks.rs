//! Whether an active token is good for this request: one check a function, all of them on every decision.

use crate::claims::{Bounds, Claims, Member, Strings, for_each_string, string};
use crate::decision::Reason;

/// Requirements of a policy on the token itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requirements {
    /// Alternatives; all words of one are needed. Empty: no scope is needed.
    pub(crate) scopes: Vec<Vec<Box<str>>>,
    pub(crate) audience: Option<Vec<Box<str>>>,
    pub(crate) issuer: Option<Vec<Box<str>>>,
    /// Tokens bound to a key, and refresh and ID tokens, are refused. Off in profile `kong`.
    pub(crate) bearer_only: bool,
}

/// Claims that passed every check at a moment. There is no other way to make one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verified<'a>(&'a Claims);

impl<'a> Verified<'a> {
    pub(crate) fn claims(self) -> &'a Claims {
        self.0
    }
}

impl Claims {
    /// Checks the claims at `wall` (microseconds since 1970), `leeway` microseconds tolerated. `bounds` are those of these claims, or a
    /// copy of them nearer by.
    #[inline(always)]
    pub(crate) fn verify(
        &self,
        bounds: &Bounds,
        needed: &Requirements,
        wall: i64,
        leeway: i64,
    ) -> Result<Verified<'_>, Reason> {
        not_expired(bounds, wall, leeway)?;
        valid_already(bounds, wall, leeway)?;
        usable_as_bearer(bounds, needed)?;
        if let Some(allowed) = &needed.issuer {
            issuer(self, allowed)?;
        }
        if let Some(allowed) = &needed.audience {
            audience(self, allowed)?;
        }
        if !needed.scopes.is_empty() {
            scopes(self, &needed.scopes)?;
        }
        Ok(Verified(self))
    }
}

/// RFC 7519 §4.1.4: the current time must be before `exp`.
fn not_expired(bounds: &Bounds, wall: i64, leeway: i64) -> Result<(), Reason> {
    match bounds.exp() {
        Some(exp) if exp.0.saturating_add(leeway) <= wall => Err(Reason::TokenExpired),
        _ => Ok(()),
    }
}

/// RFC 7519 §4.1.5: the current time must be after or equal to `nbf`.
fn valid_already(bounds: &Bounds, wall: i64, leeway: i64) -> Result<(), Reason> {
    match bounds.nbf() {
        Some(nbf) if nbf.0.saturating_sub(leeway) > wall => Err(Reason::TokenNotYetValid),
        _ => Ok(()),
    }
}

/// A token that is bound to a key (RFC 8705, RFC 9449) cannot be honoured without its proof, and a refresh or ID token is
/// no access token at all.
fn usable_as_bearer(bounds: &Bounds, needed: &Requirements) -> Result<(), Reason> {
    if needed.bearer_only && !bounds.is_bearer() { Err(Reason::TokenNotUsable) } else { Ok(()) }
}

fn issuer(claims: &Claims, allowed: &[Box<str>]) -> Result<(), Reason> {
    let issuer = claims.known(Member::Iss).and_then(string);
    match issuer {
        Some(issuer) if contains(allowed, &issuer) => Ok(()),
        _ => Err(Reason::TokenNotUsable),
    }
}

fn audience(claims: &Claims, allowed: &[Box<str>]) -> Result<(), Reason> {
    let mut shared = false;
    let kind = claims
        .known(Member::Aud)
        .map_or(Strings::Neither, |json| for_each_string(json, |audience| shared |= contains(allowed, audience)));
    if shared && kind != Strings::Neither { Ok(()) } else { Err(Reason::TokenNotUsable) }
}

/// At least one of the alternatives, all words of it.
fn scopes(claims: &Claims, alternatives: &[Vec<Box<str>>]) -> Result<(), Reason> {
    if alternatives.iter().any(|words| words.iter().all(|word| grants(claims, word))) {
        Ok(())
    } else {
        Err(Reason::InsufficientScope)
    }
}

/// RFC 7662 §2.2: `scope` is a string of words; some servers send an array, whose elements are scopes as they are.
fn grants(claims: &Claims, word: &str) -> bool {
    let Some(json) = claims.known(Member::Scope) else { return false };
    if let Some(words) = string(json) {
        return words.split(' ').any(|granted| granted == word);
    }
    let mut granted = false;
    for_each_string(json, |scope| granted |= scope == word) == Strings::Many && granted
}

fn contains(allowed: &[Box<str>], value: &str) -> bool {
    allowed.iter().any(|one| **one == *value)
}
