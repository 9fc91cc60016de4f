//! The command line: raw options first, then a request in which nothing is left to check.

use std::ffi::OsString;
use std::fmt;

use lexopt::Arg::{Long, Short};
use log::LevelFilter;

/// What `--help` prints.
pub const HELP: &str = "\
Register one trust on the FLIP hub and hand over its kit of credentials.

Usage: register-trust --name NAME [--code CODE] [--region REGION]
                      [--require-existing] [--out-ssm-parameter NAME]
                      [-v|--verbose]... [-q|--quiet] [-h|--help] [-V|--version]

The kit is one line of JSON. It is delivered before the registration is committed,
so a registered trust always has its kit, and a kit that could not be delivered was
never registered. A trust that is already registered gets a kit without credentials.

Options:
      --name NAME               display name of the trust (required)
      --code CODE               short code, such as GSTT; required for a new trust
      --region REGION           NHS region
      --require-existing        never register: fail if the trust is unknown
      --out-ssm-parameter NAME  put the kit into this SSM parameter (SecureString)
                                and print only the name
  -v, --verbose                 more log lines; repeat for still more
  -q, --quiet                   errors only
  -h, --help                    print this help
  -V, --version                 print the version

Environment:
  ENV                           development (default) or production
  DB_HOST, DB_PORT              the hub's database (localhost, 5432)
  POSTGRES_USER, POSTGRES_DB    required
  POSTGRES_PASSWORD             development only
  PGSSLMODE, PGSSLROOTCERT      as in libpq
  AWS_REGION                    required in production and with --out-ssm-parameter
  AWS_ENDPOINT_URL[_SSM]        another SSM endpoint
  FL_KIT_SLOT_NAMES             JSON list of slot names, read when no slot is free
                                (production: SSM parameter /flip/fl_kit_slot_names)
  LOG_LEVEL                     DEBUG, INFO (default), WARNING, ERROR or CRITICAL

Exit status: 0 registered or already there; 1 failed, the verdict is []; 2 usage.

Examples:
  register-trust --name 'Guy'\\''s and St Thomas'\\''' --code GSTT --region London
  register-trust --name 'Leeds Teaching' --code LTHT --out-ssm-parameter /flip/kit/1
  register-trust --name 'Leeds Teaching' --require-existing
";

const USAGE: &str = "\
usage: register-trust --name NAME [--code CODE] [--region REGION] [--require-existing]
                      [--out-ssm-parameter NAME] [-v]... [-q]
try 'register-trust --help'";

/// What the command line asks for.
pub enum Command {
    /// Print the help.
    Help,
    /// Print the version.
    Version,
    /// Register a trust.
    Register(Request),
}

/// A validated request.
pub struct Request {
    /// Display name, stripped, not empty.
    pub name: String,
    /// Short code, stripped, not empty.
    pub code: Option<String>,
    /// NHS region, stripped, not empty.
    pub region: Option<String>,
    /// Never register.
    pub require_existing: bool,
    /// Where the kit goes; stdout if absent.
    pub parameter: Option<ParameterName>,
    /// `-v` or `-q`, which override `LOG_LEVEL`.
    pub verbosity: Option<LevelFilter>,
}

/// A command line that cannot be accepted: exit 2, nothing was done.
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {}; nothing was done\n{USAGE}", self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string())
    }
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// Everything that README's "Command line" calls a usage error.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut name, mut code, mut region, mut parameter) = (None, None, None, None);
    let (mut require_existing, mut quiet) = (None, None);
    let mut verbose = 0;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("name") => text(&mut parser, "--name", &mut name)?,
            Long("code") => text(&mut parser, "--code", &mut code)?,
            Long("region") => text(&mut parser, "--region", &mut region)?,
            Long("out-ssm-parameter") => text(&mut parser, "--out-ssm-parameter", &mut parameter)?,
            Long("require-existing") => once(&mut require_existing, (), "--require-existing")?,
            Short('q') | Long("quiet") => once(&mut quiet, (), "--quiet")?,
            Short('v') | Long("verbose") => verbose += 1,
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let name = name.ok_or_else(|| UsageError("--name is required".to_owned()))?;
    Ok(Command::Register(Request {
        name: stripped(name).ok_or_else(|| UsageError("--name is blank".to_owned()))?,
        code: code.and_then(stripped),
        region: region.and_then(stripped),
        require_existing: require_existing.is_some(),
        parameter: parameter.map(ParameterName::parse).transpose()?,
        verbosity: match (quiet, verbose) {
            (Some(()), _) => Some(LevelFilter::Error),
            (None, 0) => None,
            (None, _) => Some(LevelFilter::Debug),
        },
    }))
}

fn once<T>(slot: &mut Option<T>, value: T, option: &str) -> Result<(), UsageError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UsageError(format!("{option} is given twice"))),
    }
}

fn text(
    parser: &mut lexopt::Parser,
    option: &str,
    slot: &mut Option<String>,
) -> Result<(), UsageError> {
    let value = match parser.optional_value() {
        Some(value) => value,
        // An option in the value's place means that the value was forgotten.
        None => parser
            .try_raw_args()
            .and_then(|mut rest| rest.next_if(|next| !next.as_encoded_bytes().starts_with(b"-")))
            .ok_or_else(|| {
                UsageError(format!(
                    "{option} has no value (one that starts with '-' is written {option}=VALUE)"
                ))
            })?,
    };
    let value = value
        .into_string()
        .map_err(|_| UsageError(format!("the value of {option} is not UTF-8")))?;
    once(slot, value, option)
}

fn stripped(value: String) -> Option<String> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

/// A parameter name that SSM accepts.
///
/// <https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-su-create.html>
pub struct ParameterName(String);

impl ParameterName {
    /// Longest name, in characters: 2,048 with the ARN in front of it leave 1,011.
    const LONGEST: usize = 1011;
    /// Most levels of a path, the last one included.
    const DEEPEST: usize = 15;

    fn parse(name: String) -> Result<ParameterName, UsageError> {
        let refused = |why| Err(UsageError(format!("--out-ssm-parameter {name:?} {why}")));
        let Some(path) = name.strip_prefix('/') else {
            return refused("does not start with '/'");
        };
        if name.len() > Self::LONGEST {
            return refused("is longer than 1,011 characters");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b)) {
            return refused("holds a character other than letters, digits, '_', '.', '-' and '/'");
        }
        if path.split('/').any(str::is_empty) {
            return refused("has an empty level");
        }
        if path.split('/').count() > Self::DEEPEST {
            return refused("has more than 15 levels");
        }
        let start = path.get(..3).unwrap_or_default();
        if ["aws", "ssm"].iter().any(|reserved| start.eq_ignore_ascii_case(reserved)) {
            return refused("starts with 'aws' or 'ssm', which AWS reserves");
        }
        Ok(ParameterName(name))
    }

    /// The name as SSM takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParameterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
