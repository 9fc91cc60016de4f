//! Where AWS is, as every AWS SDK reads it (doc/reference.md, "Environment").
//! <https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>

use hyper::http::uri::Authority;
use log::warn;

use crate::aws::Aws;
use crate::environment::{flag, invalid, optional, required, wrong};
use crate::error::Failure;
use crate::net::is_loopback;
use crate::tls::Authorities;

/// The partitions whose domains are their own: how their regions begin, the domain, and the domain
/// of endpoints that speak IPv6, too.
/// <https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/partitions.html>
const PARTITIONS: [(&str, &str, &str); 7] = [
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("", "amazonaws.com", "api.aws"),
];

/// Reads the region, SSM's endpoint and who is trusted to sign its certificate.
/// Errors: the first variable that is missing or invalid.
pub fn aws() -> Result<Aws, Failure> {
    let (variable, region) = required(&["AWS_REGION", "AWS_DEFAULT_REGION"])?;
    if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(invalid(variable, &region, "not a region's name"));
    }
    let configured = match flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")? {
        true => None,
        false => match url("AWS_ENDPOINT_URL_SSM")? {
            None => url("AWS_ENDPOINT_URL")?,
            own => own,
        },
    };
    let fips = flag("AWS_USE_FIPS_ENDPOINT")?;
    let dual_stack = flag("AWS_USE_DUALSTACK_ENDPOINT")?;
    let endpoint = match configured {
        Some(url) if !fips && !dual_stack => url,
        Some(_) => {
            let variable =
                if fips { "AWS_USE_FIPS_ENDPOINT" } else { "AWS_USE_DUALSTACK_ENDPOINT" };
            let what = format!("{variable} and an endpoint of your own cannot be combined");
            return Err(wrong(what, variable));
        }
        None => {
            let ours = PARTITIONS.iter().find(|(start, ..)| region.starts_with(start));
            let (_, domain, dual) = ours.copied().unwrap_or_default();
            let domain = if dual_stack { dual } else { domain };
            // GovCloud's ordinary endpoints are FIPS's.
            let ordinary = !fips || region.starts_with("us-gov-") && !dual_stack;
            format!("https://{}.{region}.{domain}", if ordinary { "ssm" } else { "ssm-fips" })
        }
    };
    let authorities = match optional("AWS_CA_BUNDLE")? {
        Some(path) => Authorities::File { variable: "AWS_CA_BUNDLE", path },
        None => Authorities::System,
    };
    Ok(Aws { region, endpoint, authorities })
}

/// Says that a kit will go over the network in clear.
pub fn warn_of_plain_http(endpoint: &str) {
    let host = endpoint.strip_prefix("http://").and_then(|it| it.parse::<Authority>().ok());
    if host.is_some_and(|it| !is_loopback(it.host())) {
        warn!(
            "the endpoint of SSM is plain http: kits and the session token go over the network in \
             clear; set AWS_ENDPOINT_URL to an https address"
        );
    }
}

fn url(variable: &str) -> Result<Option<String>, Failure> {
    let Some(url) = optional(variable)? else {
        return Ok(None);
    };
    if url.contains('@') {
        return Err(wrong(format!("{variable} holds a user name or a password"), variable));
    }
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    // HOST[:PORT] by hyper's rules; put together again it shows whether there was more, or less.
    let authority = host.and_then(|host| host.parse::<Authority>().ok()).filter(|it| {
        let port = it.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        !it.host().is_empty() && [it.host(), &port].concat() == it.as_str()
    });
    match authority {
        Some(_) => Ok(Some(url.to_owned())),
        None => Err(invalid(variable, url, "not http(s)://HOST[:PORT]")),
    }
}
