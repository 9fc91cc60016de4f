//! Handing the kit over, or taking it back with `[]` (doc/reference.md, "Delivery").

use std::fmt;

use log::{debug, warn};

use crate::aws::Aws;
use crate::endpoint;
use crate::error::Failure;
use crate::secret::Secret;
use crate::stdio::{Stdout, await_acknowledgement};

/// The verdict "this run failed, there is no kit".
const EMPTY: &str = "[]";

/// How the kit reaches its reader.
pub enum Transport {
    /// As a line on stdout.
    Stdout,
    /// The same, and the reader acknowledges it on stdin before the commit.
    Acknowledged,
    /// Through an SSM parameter; stdout takes only its name.
    Parameter(ParameterName),
}

/// Where the run's verdict goes.
pub struct Delivery {
    stdout: Stdout,
    acknowledged: bool,
    parameter: Option<Parameter>,
}

struct Parameter {
    name: ParameterName,
    aws: Aws,
    /// What SSM was told last that holds a secret, and may quote from then on.
    kit: Secret,
    /// This run has put something, so that what it overwrites is its own.
    ours: bool,
    /// A kit may have been put, or may be put later: an attempt got no answer.
    doubt: bool,
}

impl Delivery {
    /// Prepares the delivery.
    /// Errors: no verdict can be left. There is no stdout, none for the receipt, or no store.
    pub fn open(transport: Transport) -> Result<Delivery, Failure> {
        let stdout = Stdout::open()?;
        let acknowledged = matches!(transport, Transport::Acknowledged);
        let parameter = match transport {
            Transport::Stdout | Transport::Acknowledged => None,
            Transport::Parameter(name) => {
                stdout.leads_somewhere()?;
                let (aws, kit) = (endpoint::aws()?, Secret::new(String::new()));
                Some(Parameter { name, aws, kit, ours: false, doubt: false })
            }
        };
        Ok(Delivery { stdout, acknowledged, parameter })
    }

    /// Delivers a kit with credentials. To be called before the commit.
    /// Errors: it was not received, or not for sure: the registration must not be committed.
    pub fn hand_over(&mut self, kit: &Secret, trust_id: &str) -> Result<(), Failure> {
        if self.parameter.is_none() {
            self.stdout.leads_somewhere()?;
        }
        self.hand_over_metadata(kit)?;
        if self.acknowledged {
            debug!("waiting for the acknowledgement");
            await_acknowledgement(trust_id)?;
        }
        Ok(())
    }

    /// Delivers a kit without credentials. Nothing is lost with it.
    pub fn hand_over_metadata(&mut self, kit: &Secret) -> Result<(), Failure> {
        match &mut self.parameter {
            None => self.stdout.print(kit.expose())?,
            Some(parameter) => parameter.put(kit)?,
        }
        debug!("delivered the kit");
        Ok(())
    }

    /// Says that what was delivered is final.
    /// Errors: it could not be said. The kit is safe.
    pub fn receipt(&mut self, trust_id: &str) -> Result<(), Failure> {
        let name = self.parameter.as_ref().map(|parameter| parameter.name.0.as_str());
        let (line, place, next) = match name {
            Some(name) => (name, name, "read the kit there, then delete the parameter"),
            None if self.acknowledged => {
                (trust_id, "its reader's hands", "keep that kit: another run brings no credentials")
            }
            None => return Ok(()),
        };
        self.stdout.print(line).map_err(|failure| Failure {
            what: format!(
                "cannot print the receipt: {}; the trust is registered and its kit is safe in {place}",
                failure.what
            ),
            next: next.to_owned(),
            kit_stays: true,
        })?;
        if let Some(Parameter { name, doubt: true, .. }) = &self.parameter {
            warn!(
                "an attempt to put the kit got no answer, and SSM may still store the kit later: {name} can \
                 reappear after it was deleted; look again after some minutes"
            );
        }
        Ok(())
    }

    /// After a failure: leaves `[]` as the verdict.
    /// Errors: what was delivered, if anything was, is still there.
    pub fn take_back(&mut self) -> Result<(), Failure> {
        let Some(parameter) = &mut self.parameter else {
            return self.stdout.print(EMPTY);
        };
        let (delivered, doubt) = (parameter.ours || parameter.doubt, parameter.doubt);
        let name = &parameter.name.to_string();
        let may = if doubt { "may come to hold" } else { "may hold" };
        let next = format!("{name} {may} a kit that was never registered: delete it");
        match parameter.put(&Secret::new(EMPTY.to_owned())) {
            Err(failure) if delivered => Err(Failure { next, ..failure }),
            Ok(()) if doubt => Err(Failure::new(
                "an attempt to put the kit got no answer, and SSM may still store the kit later, over the []; no \
                 receipt is printed",
                format!("{next}, and look again after some minutes"),
            )),
            put => put.and_then(|()| self.stdout.print(name)),
        }
    }
}

impl Parameter {
    fn put(&mut self, value: &Secret) -> Result<(), Failure> {
        let is_kit = value.expose() != EMPTY;
        if is_kit {
            self.kit = Secret::new(value.expose().to_owned());
        }
        let put = self.aws.put(&self.name.0, value, &self.kit);
        self.doubt |= put.doubt && is_kit;
        let version = put.version?;
        let name = &self.name;
        debug!("put version {version} of {name}");
        if !self.ours && version > 1 {
            let or = if self.doubt || put.doubt { " or before" } else { "" };
            warn!(
                "{name} existed and was overwritten; the earlier version can still be read as \
                 {name}:{}{or}",
                version - 1
            );
        }
        self.ours = true;
        Ok(())
    }
}

/// A parameter name that SSM accepts.
///
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html>
pub struct ParameterName(String);

impl ParameterName {
    /// Errors: the first of SSM's rules that the name breaks.
    pub fn parse(name: String) -> Result<ParameterName, String> {
        let path = name.strip_prefix('/');
        let levels: Vec<_> = path.unwrap_or_default().split('/').collect();
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-/".contains(&b);
        let starts = |word| name.get(1..4).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let rules = [
            (path.is_some(), "does not start with '/'"),
            (name.len() <= 1011, "is longer than 1,011 characters"),
            (
                name.bytes().all(is_plain),
                "holds a character other than letters, digits, '_', '.', '-' and '/'",
            ),
            (levels.iter().all(|level| !level.is_empty()), "has an empty level"),
            (levels.len() <= 15, "has more than 15 levels"),
            (!starts("aws") && !starts("ssm"), "starts with 'aws' or 'ssm', which AWS reserves"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, broken)) => Err(format!("--out-ssm-parameter {broken}: {name:?}")),
            None => Ok(ParameterName(name)),
        }
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
