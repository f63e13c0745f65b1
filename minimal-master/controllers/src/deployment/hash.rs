//! The hash in a ReplicaSet's name. It only has to be stable and spread well: whether two templates
//! are the same is decided by comparing them.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// No vowels and no look-alikes, as upstream's `SafeEncodeString`: hashes must not spell words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// The hash of a template; the collision count makes another hash from the same template.
pub fn of_template(template: &PodTemplateSpec, collision_count: i32) -> String {
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if collision_count > 0 {
        bytes.extend(collision_count.to_le_bytes());
    }
    let digits = fnv1a(&bytes).to_string();
    let letter = |digit: u8| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]);
    digits.bytes().map(letter).collect()
}

/// 32-bit FNV-1a.
fn fnv1a(bytes: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_matches_its_published_vectors() {
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn a_collision_count_gives_another_name() {
        let template = PodTemplateSpec::default();
        assert_eq!(of_template(&template, 0), of_template(&template, 0));
        assert_ne!(of_template(&template, 0), of_template(&template, 1));
    }
}
