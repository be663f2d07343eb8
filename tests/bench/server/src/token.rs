//! Tokens that need no table: what they are is said by how they begin, so that there are any number of them.
//!
//! `person.NUMBER`, `application.NUMBER`, `scope.SCOPE.NUMBER` are active, everything else is not. The number is filled up with zeros to the length
//! that is wanted, and comes back as `sub`.

/// The token of this number, `length` bytes long or as long as it has to be.
pub(crate) fn person(number: u64, length: usize) -> String {
    const HEAD: &str = "person.";
    format!("{HEAD}{number:0>width$}", width = length.saturating_sub(HEAD.len()))
}

/// What the authorization server says of a token (RFC 7662 §2.2). The one of a person is that section's example.
pub(crate) fn introspect(token: &str) -> Option<String> {
    let (head, number) = token.split_once('.')?;
    let (scope, number) = if head == "scope" { number.split_once('.')? } else { ("orders:read", number) };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = match number.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    };
    match head {
        "person" => Some(format!(
            "{{\"active\":true,\"scope\":\"orders:read orders:write\",\"client_id\":\"l238j323ds-23ij4\",\"username\":\"jdoe\",\
             \"token_type\":\"Bearer\",\"exp\":4102444800,\"iat\":1419350238,\"sub\":\"{number}\",\
             \"aud\":\"https://protected.example.net/resource\",\"iss\":\"https://server.example.com/\"}}"
        )),
        "application" | "scope" => Some(format!(
            "{{\"active\":true,\"scope\":\"{scope}\",\"client_id\":\"billing\",\"sub\":\"{number}\",\"exp\":4102444800}}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_length_that_is_asked_for_and_comes_back_as_its_subject() {
        let token = person(8_000_041, 43);
        assert_eq!(token.len(), 43);
        assert!(introspect(&token).unwrap().contains("\"sub\":\"8000041\""));
        assert!(introspect(&person(0, 20)).unwrap().contains("\"sub\":\"0\""));
    }

    #[test]
    fn a_token_says_its_scope() {
        assert!(introspect("scope.reports.7").unwrap().contains("\"scope\":\"reports\""));
    }

    #[test]
    fn any_other_token_is_inactive() {
        for token in ["", "person", "person.x", "inactive.7", "scope.7"] {
            assert_eq!(introspect(token), None, "{token}");
        }
    }
}
