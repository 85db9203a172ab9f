//! Signatures of binaries: with trusted keys set, only what one of them signed is taken. It knows bytes and keys, and not
//! where either is kept.

use ed25519_dalek::{Signature, VerifyingKey};

/// The Ed25519 keys whose signatures are trusted. Empty means that nothing needs a signature.
#[derive(Debug, Clone, Default)]
pub struct TrustedKeys(Vec<VerifyingKey>);

impl TrustedKeys {
    /// From the raw public keys, 32 bytes each.
    pub fn new(keys: &[[u8; 32]]) -> Result<TrustedKeys, SignatureError> {
        let parse = |(number, key): (usize, &[u8; 32])| {
            let key = VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
            key.ok_or(SignatureError::BadKey { number: number + 1 })
        };
        keys.iter().enumerate().map(parse).collect::<Result<_, _>>().map(TrustedKeys)
    }

    /// Whether one of the keys signed exactly these bytes. Always fine where no key is set.
    pub fn check(&self, bytes: &[u8], signature: Option<&[u8]>) -> Result<(), SignatureError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let signature = signature.ok_or(SignatureError::Missing)?;
        let signature = Signature::from_slice(signature).map_err(|_| SignatureError::Wrong)?;
        match self.0.iter().any(|key| key.verify_strict(bytes, &signature).is_ok()) {
            true => Ok(()),
            false => Err(SignatureError::Wrong),
        }
    }
}

/// Why a binary's signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A trusted key is no key.
    #[error("trusted key number {number} is no Ed25519 public key: it takes the 32 bytes of one")]
    BadKey {
        /// Its place in the list, from 1.
        number: usize,
    },
    /// Nothing was given.
    #[error(
        "the module is not signed, and trusted keys are set: sign it with `chaski module deploy --sign-key FILE`"
    )]
    Missing,
    /// It is none of a trusted key over these bytes.
    #[error("the module's signature is of none of the trusted keys: sign these very bytes with one of them")]
    Wrong,
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn unsigned_and_wrongly_signed_binaries_are_refused_once_a_key_is_trusted() {
        let (mine, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let keys =
            TrustedKeys::new(&[other.verifying_key().to_bytes(), mine.verifying_key().to_bytes()]).unwrap();
        let good = mine.sign(b"binary").to_bytes();
        assert_eq!(keys.check(b"binary", Some(&good)), Ok(()));
        assert_eq!(keys.check(b"binarz", Some(&good)), Err(SignatureError::Wrong));
        assert_eq!(keys.check(b"binary", Some(&good[1..])), Err(SignatureError::Wrong));
        assert_eq!(keys.check(b"binary", None), Err(SignatureError::Missing));
        let stranger = SigningKey::from_bytes(&[9; 32]).sign(b"binary").to_bytes();
        assert_eq!(keys.check(b"binary", Some(&stranger)), Err(SignatureError::Wrong));
        assert_eq!(TrustedKeys::default().check(b"binary", None), Ok(()));
        assert_eq!(TrustedKeys::new(&[[0; 32]]).unwrap_err(), SignatureError::BadKey { number: 1 });
    }
}
