//! How a change and an object are laid out in the file. Integers are little-endian.
//!
//! object: create_revision u64, mod_revision u64, version u64, value.
//! change: tag u8 (0 deleted, 1 put), key length u32, key, then for a put an object.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{KeyValue, StoreError};

const DELETED: u8 = 0;
const PUT: u8 = 1;
const OBJECT_HEADER: usize = 24;

pub(super) fn encode_object(kv: &KeyValue, out: &mut BytesMut) {
    out.put_u64_le(kv.create_revision);
    out.put_u64_le(kv.mod_revision);
    out.put_u64_le(kv.version);
    out.put_slice(&kv.value);
}

pub(super) fn decode_object(key: Bytes, mut data: Bytes) -> Result<KeyValue, StoreError> {
    if data.len() < OBJECT_HEADER {
        return Err(StoreError::Format(format!(
            "the object {} is cut short",
            String::from_utf8_lossy(&key)
        )));
    }
    let create_revision = data.get_u64_le();
    let mod_revision = data.get_u64_le();
    let version = data.get_u64_le();
    Ok(KeyValue {
        key,
        value: data,
        create_revision,
        mod_revision,
        version,
    })
}

pub(super) fn encode_change(key: &[u8], current: Option<&KeyValue>, out: &mut BytesMut) {
    out.put_u8(if current.is_some() { PUT } else { DELETED });
    out.put_u32_le(key.len() as u32);
    out.put_slice(key);
    if let Some(kv) = current {
        encode_object(kv, out);
    }
}

/// The key, and the object unless the change is a deletion.
pub(super) fn decode_change(mut data: Bytes) -> Result<(Bytes, Option<KeyValue>), StoreError> {
    let short = || StoreError::Format("a log record is cut short".to_owned());
    if data.len() < 5 {
        return Err(short());
    }
    let tag = data.get_u8();
    let length = data.get_u32_le() as usize;
    if data.len() < length {
        return Err(short());
    }
    let key = data.split_to(length);
    match tag {
        DELETED => Ok((key, None)),
        PUT => Ok((key.clone(), Some(decode_object(key, data)?))),
        other => Err(StoreError::Format(format!(
            "a log record has the unknown tag {other}"
        ))),
    }
}
