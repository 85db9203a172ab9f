//! What a bearer token may look like. It knows no token: the router keeps their digests, and nobody logs one.

use crate::limits::MAX_TOKEN;

/// The token can't be sent. The sentence doesn't repeat it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has 1 to {MAX_TOKEN} bytes of visible ASCII, without spaces")]
pub struct TokenError;

/// Whether a token may stand in `Hello`: 1 to [`MAX_TOKEN`] bytes of visible ASCII.
pub fn check_token(token: &str) -> Result<(), TokenError> {
    let fits = (1..=MAX_TOKEN).contains(&token.len());
    if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(()) } else { Err(TokenError) }
}
