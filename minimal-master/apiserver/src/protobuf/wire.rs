//! The wire format of protobuf: numbered fields of four shapes.

use super::{ProtobufError, Result};

/// A field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Field<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Damaged),
        }
    }

    pub(super) fn varint(self) -> Result<u64> {
        match self {
            Field::Varint(number) => Ok(number),
            Field::Fixed32(number) => Ok(number.into()),
            _ => Err(ProtobufError::Damaged),
        }
    }

    pub(super) fn fixed64(self) -> Result<u64> {
        match self {
            Field::Fixed64(number) => Ok(number),
            _ => Err(ProtobufError::Damaged),
        }
    }
}

/// The fields of a message, with their numbers. Ends at the first that is damaged.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn field(&mut self) -> Result<(u64, Field<'a>)> {
        let key = varint(&mut self.0)?;
        let field = match key & 7 {
            0 => Field::Varint(varint(&mut self.0)?),
            1 => Field::Fixed64(u64::from_le_bytes(fixed(&mut self.0)?)),
            2 => {
                let length = varint(&mut self.0)?;
                Field::Bytes(take(&mut self.0, length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(fixed(&mut self.0)?)),
            _ => return Err(ProtobufError::Damaged),
        };
        Ok((key >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The numbers of a packed list.
pub(super) fn packed(mut bytes: &[u8]) -> impl Iterator<Item = Result<u64>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let number = varint(&mut bytes);
        if number.is_err() {
            bytes = &[];
        }
        Some(number)
    })
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(ProtobufError::Damaged)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Damaged)
}

fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Result<&'a [u8]> {
    let length = usize::try_from(length).map_err(|_| ProtobufError::Damaged)?;
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or(ProtobufError::Damaged)?;
    *bytes = rest;
    Ok(taken)
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(ProtobufError::Damaged)?;
    *bytes = rest;
    Ok(*taken)
}
