//! Ed25519 signatures of binaries, and the forms of a private key's file. It knows bytes and no router.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::Ed25519KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;

/// A private key.
pub(super) struct Key(Ed25519KeyPair);

impl Key {
    /// From a file's text: PKCS#8 in PEM, or the seed in base64. The error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Key, String> {
        let wrong = "it is no Ed25519 private key: PKCS#8 in PEM, or the 32 bytes of the seed in base64";
        let pair = if text.contains("-----BEGIN") {
            let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| wrong.to_owned())?;
            // Without the public key, which OpenSSL leaves out, there is nothing to compare.
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
        } else {
            let seed = BASE64.decode(text.trim()).map_err(|_| wrong.to_owned())?;
            Ed25519KeyPair::from_seed_unchecked(&seed)
        };
        pair.map(Key).map_err(|_| wrong.to_owned())
    }

    /// The signature over these bytes: 64 bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2: seed, and the signature over the byte 0x72.
    const SEED: &str = "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs=";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
        085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn a_seed_and_the_same_key_in_pem_sign_alike() {
        let seed = Key::parse(&format!("{SEED}\n")).expect("a seed").sign(&[0x72]);
        let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        der.extend(BASE64.decode(SEED).expect("base64"));
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64.encode(der));
        assert_eq!(Key::parse(&pem).expect("a key").sign(&[0x72]), seed);
        let hex: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, SIGNATURE);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "?", "AAAA", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(Key::parse(text).is_err(), "{text}");
        }
    }
}
