//! Passes the messages of one region: the example of the guest SDK's documentation.

use chaski_guest::prelude::*;

#[params]
struct Params {
    region: String,
}

#[filter]
fn eu_only(#[header("region")] region: Option<&str>, params: &Params) -> Verdict {
    if region == Some(&*params.region) { Verdict::Pass } else { Verdict::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_region_given_passes() {
        let params = Params { region: "eu".into() };
        assert_eq!(eu_only(Some("eu"), &params), Verdict::Pass);
        assert_eq!(eu_only(Some("us"), &params), Verdict::Drop);
        assert_eq!(eu_only(None, &params), Verdict::Drop);
    }
}
