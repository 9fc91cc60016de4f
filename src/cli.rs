//! The command line (doc/reference.md, "Command line"): raw options first, then a request in which
//! nothing is left to check.

use std::ffi::OsString;

use lexopt::Arg::{Long, Short};
use lexopt::{Error, Parser};
use log::LevelFilter;

use crate::delivery::{ParameterName, Transport};
use crate::kit::is_uuid;

/// What `--help` prints.
pub const HELP: &str = include_str!("../doc/help.txt");

/// The short usage behind a usage error: the help's own.
pub fn usage() -> String {
    let usage = HELP.split("\n\n").find_map(|part| part.strip_prefix("Usage: "));
    format!("usage: {}\ntry 'register-trust --help'", usage.unwrap_or_default())
}

/// What the command line asks for.
pub enum Command {
    Help,
    Version,
    /// With the level of `-v` or `-q`, which overrides `LOG_LEVEL`.
    Run(Task, Option<LevelFilter>),
}

/// What there is to do on the hub.
pub enum Task {
    Register(Request, Transport),
    CheckKit(Question),
}

/// A trust to find or to register.
pub struct Request {
    /// Display name, stripped, not empty.
    pub name: String,
    /// Short code, stripped, not empty.
    pub code: Option<String>,
    /// NHS region, stripped, not empty.
    pub region: Option<String>,
    /// Never register.
    pub require_existing: bool,
}

/// Whether the kit with this `trust_id` is valid.
pub struct Question {
    /// The name that the trust was registered with, stripped, not empty.
    pub name: String,
    /// A UUID as the kit has it: lower case, with hyphens.
    pub trust_id: String,
}

/// Reads the arguments that follow the program's name.
/// Errors: a usage error, in words: exit 2, nothing was done.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    let mut parser = Parser::from_args(arguments);
    let (mut name, mut code, mut region) = (None, None, None);
    let (mut parameter, mut trust_id) = (None, None);
    let (mut require_existing, mut await_ack, mut quiet, mut verbose) = (None, None, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => text(&mut parser, "--name", &mut name)?,
            Long("code") => text(&mut parser, "--code", &mut code)?,
            Long("region") => text(&mut parser, "--region", &mut region)?,
            Long("out-ssm-parameter") => text(&mut parser, "--out-ssm-parameter", &mut parameter)?,
            Long("check-kit") => text(&mut parser, "--check-kit", &mut trust_id)?,
            Long("require-existing") => once(&mut require_existing, (), "--require-existing")?,
            Long("await-ack") => once(&mut await_ack, (), "--await-ack")?,
            Short('q') | Long("quiet") => once(&mut quiet, LevelFilter::Error, "--quiet")?,
            Short('v') | Long("verbose") => verbose = Some(LevelFilter::Debug),
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            _ => return Err(argument.unexpected()),
        }
    }
    let name = stripped(name.ok_or("--name is required")?).ok_or("--name is blank")?;
    let transport = match (parameter, await_ack) {
        (Some(_), Some(())) => {
            return Err("--await-ack and --out-ssm-parameter cannot be combined".into());
        }
        (Some(parameter), None) => Transport::Parameter(ParameterName::parse(parameter)?),
        (None, Some(())) => Transport::Acknowledged,
        (None, None) => Transport::Stdout,
    };
    let task = match trust_id {
        None => Task::Register(
            Request {
                name,
                code: code.and_then(stripped),
                region: region.and_then(stripped),
                require_existing: require_existing.is_some(),
            },
            transport,
        ),
        Some(trust_id) if is_uuid(&trust_id) => {
            let others = code.is_some() || region.is_some() || require_existing.is_some();
            if others || !matches!(transport, Transport::Stdout) {
                return Err("--check-kit can only be combined with --name, -v and -q".into());
            }
            Task::CheckKit(Question { name, trust_id: trust_id.to_ascii_lowercase() })
        }
        Some(trust_id) => return Err(format!("--check-kit {trust_id:?} is not a UUID").into()),
    };
    Ok(Command::Run(task, quiet.or(verbose)))
}

fn once<T>(option: &mut Option<T>, value: T, name: &str) -> Result<(), Error> {
    match option.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is given twice").into()),
    }
}

fn text(parser: &mut Parser, name: &str, option: &mut Option<String>) -> Result<(), Error> {
    let value = match parser.optional_value() {
        Some(value) => value,
        // An option in the value's place means that the value was forgotten.
        None => parser
            .try_raw_args()
            .and_then(|mut rest| rest.next_if(|next| !next.as_encoded_bytes().starts_with(b"-")))
            .ok_or_else(|| {
                format!("{name} has no value (one that starts with '-' is written {name}=VALUE)")
            })?,
    };
    let value = value.into_string().map_err(|_| format!("the value of {name} is not UTF-8"))?;
    once(option, value, name)
}

fn stripped(value: String) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}
