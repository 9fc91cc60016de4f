//! Registers one trust on a FLIP hub and hands over its kit of credentials, delivered before
//! the commit. doc/reference.md has the rules; `run` below is the whole way of the data.

mod aws;
mod aws_error;
mod cli;
mod commit;
mod credentials;
mod delivery;
mod endpoint;
mod environment;
mod error;
mod http;
mod hub;
mod hub_error;
mod kit;
mod net;
mod registration;
mod secret;
mod settings;
mod slots;
mod stderr;
mod stdio;
mod tls;
mod transaction;
mod wait;
mod wire;

use std::process::ExitCode;
use std::{env, panic};

use log::{LevelFilter, debug, error, info};

use cli::{Command, Question, Request, Task};
use delivery::{Delivery, Transport};
use error::{Failure, words};
use hub::Hub;
use kit::Kit;
use registration::Registration;
use settings::Settings;
use stdio::Stdout;
use transaction::Transaction;

fn main() -> ExitCode {
    // A panic's own message can quote data; the place is enough to find it.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!("internal error at {place}; please report it");
    }));
    match cli::parse(env::args_os().skip(1)) {
        Ok(Command::Help) => print(cli::HELP.trim_end()),
        Ok(Command::Version) => print(concat!("register-trust ", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Run(task, verbosity)) => {
            let level = verbosity.map_or_else(settings::log_level, Ok);
            stderr::start_logger(*level.as_ref().unwrap_or(&LevelFilter::Error));
            let ready = prepare().and_then(|()| level.map(drop));
            match task {
                Task::Register(request, transport) => run(ready, &request, transport),
                Task::CheckKit(question) => check_kit(ready, &question),
            }
        }
        Err(error) => {
            // No secret comes in arguments, and a parameter's name may hold many digits.
            let error = words(&error.to_string(), usize::MAX);
            stderr::write(format!("ERROR {error}; nothing was done\n{}\n", cli::usage()));
            ExitCode::from(2)
        }
    }
}

/// What must hold before there is a secret.
fn prepare() -> Result<(), Failure> {
    wait::watch_signals()
        .map_err(|error| Failure::internal(format!("cannot watch for signals: {error}")))?;
    secret::forbid_core_dumps()
        .map_err(|error| Failure::internal(format!("cannot forbid core dumps: {error}")))
}

/// Registers, and leaves `[]` as the verdict if that fails.
fn run(ready: Result<(), Failure>, request: &Request, transport: Transport) -> ExitCode {
    let mut delivery = match Delivery::open(transport) {
        Ok(delivery) => delivery,
        Err(failure) => {
            report(&failure);
            error!("the verdict [] could not be left: no delivery was possible");
            return ExitCode::FAILURE;
        }
    };
    let Err(failure) = ready.and_then(|()| register(request, &mut delivery)) else {
        return ExitCode::SUCCESS;
    };
    report(&failure);
    if !failure.kit_stays
        && let Err(further) = delivery.take_back()
    {
        error!("cannot leave [] as the verdict either: {}; {}", further.what, further.next);
    }
    ExitCode::FAILURE
}

fn register(request: &Request, delivery: &mut Delivery) -> Result<(), Failure> {
    let settings = Settings::read()?;
    let hub = Hub::connect(&settings, hub::CONNECT)?;
    debug!("connected to the hub");
    let name = &request.name;
    let mut transaction = if request.require_existing {
        Transaction::open_to_look(hub, name, &secret::uuid()?)?
    } else {
        Transaction::open(hub, name)?
    };
    match registration::find_or_register(&mut transaction, request, &settings.stage)? {
        Registration::New { trust, keys, xact_id } => {
            let kit = Kit::new(name, &trust, Some(&keys.keys), &settings.hub_shared).to_json()?;
            delivery.hand_over(&kit, &trust.id)?;
            commit::commit(transaction, xact_id, &settings)?;
            delivery.receipt(&trust.id)?;
            let slot = trust.slot.unwrap_or_default();
            info!("registered trust {name:?} as {} with slot {}", trust.id, settings.shown(&slot));
        }
        Registration::Existing(trust) => {
            // Nothing was written, and nothing is left to do on the hub.
            drop(transaction);
            let kit = Kit::new(name, &trust, None, &settings.hub_shared).to_json()?;
            delivery.hand_over_metadata(&kit)?;
            delivery.receipt(&trust.id)?;
            let id = trust.id;
            info!("trust {name:?} is already registered as {id}; its kit has no credentials");
        }
    }
    Ok(())
}

/// Says in one word whether the kit is valid.
fn check_kit(ready: Result<(), Failure>, question: &Question) -> ExitCode {
    let valid = ready.and_then(|()| {
        let settings = Settings::read()?;
        let hub = Hub::connect(&settings, hub::CONNECT)?;
        commit::is_valid(Transaction::open_to_look(hub, &question.name, &question.trust_id)?)
    });
    let word = match &valid {
        Ok(true) => "valid",
        Ok(false) => "worthless",
        Err(failure) => {
            say(&format!("cannot tell whether the kit is valid: {}", failure.what), &failure.next);
            "unknown"
        }
    };
    wait::clean_up();
    match (print(word), valid) {
        (printed, Ok(true)) => printed,
        _ => ExitCode::FAILURE,
    }
}

fn report(failure: &Failure) {
    say(&failure.to_string(), &failure.next);
}

/// What is left to do is not interrupted again: a signal would end the wait for a line, too, and
/// leave it unwritten.
fn say(what: &str, next: &str) {
    wait::clean_up();
    error!("{what}");
    error!("next: {next}");
}

fn print(text: &str) -> ExitCode {
    match Stdout::open().and_then(|mut stdout| stdout.print(text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr::write(format!("ERROR {}\n", failure.what));
            ExitCode::FAILURE
        }
    }
}
