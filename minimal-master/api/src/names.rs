//! Syntax of names, labels, ports and addresses, with upstream's words for what is wrong.
//!
//! Each check returns messages; none means that the value is valid.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// A rule that can be expressed as a regular expression, as upstream prints it.
fn pattern(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

/// `must be no more than 63 bytes`.
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether every byte is `inner`, and the first and last are `outer`.
fn framed(text: &str, outer: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        bytes => {
            outer(bytes[0]) && outer(bytes[bytes.len() - 1]) && bytes.iter().copied().all(inner)
        }
    }
}

fn is_label(text: &str) -> bool {
    framed(text, is_lower, |b| is_lower(b) || b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    framed(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// A DNS label (RFC 1123), as names of namespaces and containers are.
pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = over(value, 63);
    if !is_label(value) {
        errors.push(match is_subdomain(value) {
            true => "must not contain dots".to_owned(),
            false => pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL,
                &["my-name", "123-abc"],
            ),
        });
    }
    errors
}

/// A DNS subdomain (RFC 1123), as most names are.
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = over(value, 253);
    if !is_subdomain(value) {
        errors.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// A DNS label that starts with a letter (RFC 1035), as names of Services are.
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let mut errors = over(value, 63);
    if !is_label(value) || !value.as_bytes()[0].is_ascii_lowercase() {
        errors.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A name with an optional DNS prefix, as keys of labels and annotations are.
pub fn qualified_name(value: &str) -> Vec<String> {
    const CONSIST: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let parts: Vec<&str> = value.split('/').collect();
    let mut errors = Vec::new();
    let name = match parts[..] {
        [name] => name,
        ["", name] => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            errors.extend(
                dns_subdomain(prefix)
                    .into_iter()
                    .map(|e| format!("prefix part {e}")),
            );
            name
        }
        _ => {
            let text = pattern(&format!("a qualified name {CONSIST}"), QUALIFIED, EXAMPLES);
            return vec![format!(
                "{text} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    match name.len() {
        0 => errors.push("name part must be non-empty".to_owned()),
        64.. => errors.push(format!("name part {}", too_long(63))),
        _ => {}
    }
    if !is_qualified(name) {
        errors.push(format!(
            "name part {}",
            pattern(CONSIST, QUALIFIED, EXAMPLES)
        ));
    }
    errors
}

/// The value of a label; may be empty.
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = over(value, 63);
    if !value.is_empty() && !is_qualified(value) {
        errors.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The name of a port (IANA service name, RFC 6335).
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = over(value, 15);
    let mut check = |bad: bool, message: &str| {
        if bad {
            errors.push(message.to_owned());
        }
    };
    check(
        value.is_empty() || !value.bytes().all(|b| is_lower(b) || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    );
    check(
        !value.bytes().any(|b| b.is_ascii_lowercase()),
        "must contain at least one letter (a-z)",
    );
    check(value.contains("--"), "must not contain consecutive hyphens");
    check(
        value.starts_with('-') || value.ends_with('-'),
        "must not begin or end with a hyphen",
    );
    errors
}

/// The key of an entry in a ConfigMap or Secret, which is also a file name.
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = over(value, 253);
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if value.is_empty() || !value.bytes().all(valid) {
        errors.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." | ".." => errors.push(format!("must not be '{value}'")),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an environment variable.
pub fn env_name(value: &str) -> Vec<String> {
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    match value {
        "" => vec!["environment variable name must be non-empty".to_owned()],
        value if value.chars().all(|c| printable(c) && c != '=') => Vec::new(),
        _ => vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ],
    }
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Vec<String> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    match !value.is_empty() && value.bytes().all(valid) {
        true => Vec::new(),
        false => vec![pattern(
            "a valid HTTP header must consist of alphanumeric characters or '-'",
            "[-A-Za-z0-9]+",
            &["X-Header-Name"],
        )],
    }
}

/// A percentage such as `25%`.
pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or_default();
    match !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        true => Vec::new(),
        false => vec![pattern(
            "a valid percent string must be a numeric string followed by an ending '%'",
            "[0-9]+%",
            &["1%", "93%"],
        )],
    }
}

/// A port number.
pub fn port(number: i64) -> Vec<String> {
    in_range(number, 1, 65_535)
}

/// An integer between two bounds, both included.
pub fn in_range(number: i64, min: i64, max: i64) -> Vec<String> {
    match (min..=max).contains(&number) {
        true => Vec::new(),
        false => vec![format!("must be between {min} and {max}, inclusive")],
    }
}

/// An IP address of either family.
pub fn ip(value: &str) -> Vec<String> {
    match value.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => {
            vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
        }
    }
}

/// A network in CIDR notation.
pub fn cidr(value: &str) -> Vec<String> {
    match value.contains('/') && value.parse::<IpNetwork>().is_ok() {
        true => Vec::new(),
        false => {
            vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
        }
    }
}

/// Why an address can't be an endpoint's, if so.
pub fn endpoint_ip(value: &str) -> Vec<String> {
    let Ok(address) = value.parse::<IpAddr>() else {
        return ip(value);
    };
    let multicast_local = match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    let range = match address {
        _ if address.is_unspecified() => {
            return vec![format!("may not be unspecified ({value})")];
        }
        IpAddr::V4(v4) if v4.is_loopback() => {
            "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        }
        IpAddr::V6(v6) if v6.is_loopback() => {
            "may not be in the loopback range (127.0.0.0/8, ::1/128)"
        }
        _ if link_local => "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        _ if multicast_local => {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        }
        _ => return Vec::new(),
    };
    debug_assert_ne!(address, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    vec![range.to_owned()]
}

fn over(value: &str, max: usize) -> Vec<String> {
    match value.len() > max {
        true => vec![too_long(max)],
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        assert!(dns_label("my-name").is_empty());
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_label(&"a".repeat(64)),
            ["must be no more than 63 bytes"]
        );
        assert!(dns_label("-a")[0].ends_with(
            "(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ));
        assert!(dns_subdomain("a.b-c.1").is_empty());
        assert!(!dns_subdomain("a..b").is_empty());
        assert!(!dns_subdomain("").is_empty());
        assert!(dns_1035_label("abc-1").is_empty());
        assert!(!dns_1035_label("1abc").is_empty());
        assert!(!dns_1035_label("").is_empty());
    }

    #[test]
    fn label_keys_and_values() {
        for key in ["app", "example.com/my_Name.x", "1"] {
            assert!(qualified_name(key).is_empty(), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "-a", "Example.com/a", "a b"] {
            assert!(!qualified_name(key).is_empty(), "{key}");
        }
        assert!(label_value("").is_empty());
        assert!(label_value("My_value.1").is_empty());
        assert!(!label_value("a/b").is_empty());
    }

    #[test]
    fn ports_and_keys() {
        assert!(port_name("http-1").is_empty());
        assert!(!port_name("1").is_empty());
        assert!(!port_name("a--b").is_empty());
        assert!(!port_name("a234567890123456").is_empty());
        assert!(config_key("a.b_C-1").is_empty());
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(port(0), ["must be between 1 and 65535, inclusive"]);
        assert!(env_name("MY VAR").is_empty());
        assert!(!env_name("A=B").is_empty());
    }

    #[test]
    fn addresses() {
        assert!(ip("10.0.0.1").is_empty());
        assert!(!ip("10.0.0").is_empty());
        assert!(cidr("fd00::/64").is_empty());
        assert!(!cidr("10.0.0.0").is_empty());
        assert!(endpoint_ip("10.0.0.1").is_empty());
        for bad in [
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "169.254.0.1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(!endpoint_ip(bad).is_empty(), "{bad}");
        }
    }
}
