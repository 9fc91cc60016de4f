//! Registers one trust on a FLIP hub and hands over its kit of credentials, delivered before
//! the commit. README.md holds the contract; `run` below is the whole way of the data.

mod aws;
mod aws_error;
mod cli;
mod commit;
mod delivery;
mod error;
mod hub;
mod kit;
mod registration;
mod secret;
mod settings;
mod slots;
mod tls;

use std::io::{self, Write};
use std::process::ExitCode;
use std::{env, panic};

use log::{LevelFilter, debug, error, info, warn};

use cli::{Command, Request};
use delivery::{Delivery, Stdout};
use error::{Failure, one_line};
use hub::Hub;
use kit::Kit;
use registration::Registration;
use settings::Settings;

fn main() -> ExitCode {
    // A panic's own message can quote data; the place is enough to find it.
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        error!("internal error at {place}; please report it");
    }));
    match cli::parse(env::args_os().skip(1)) {
        Ok(Command::Help) => print(cli::HELP.trim_end()),
        Ok(Command::Version) => print(concat!("register-trust ", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Register(request)) => run(request),
        Err(error) => {
            // With stderr gone there is nobody left to tell.
            let error = one_line(&error.to_string());
            let _ = writeln!(io::stderr(), "ERROR {error}; nothing was done\n{}", cli::usage());
            ExitCode::from(2)
        }
    }
}

/// Registers, and leaves `[]` as the verdict if that fails.
fn run(mut request: Request) -> ExitCode {
    let level = request.verbosity.map_or_else(settings::log_level, Ok);
    start_logger(*level.as_ref().unwrap_or(&LevelFilter::Error));
    let mut delivery = match Delivery::open(request.parameter.take()) {
        Ok(delivery) => delivery,
        Err(failure) => return report(&failure),
    };
    let Err(failure) = level.and_then(|_| register(&request, &mut delivery)) else {
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
    let mut registration = Registration::open(hub, request)?;
    let trust = registration.find_or_register(&settings.stage)?;

    let name = &request.name;
    let kit = Kit {
        trust_id: &trust.id,
        trust_name: name,
        keys: trust.xact_id.and(registration.keys()),
        fl_kit_slot: trust.slot.as_deref(),
        fl_kit_slot_number: trust.slot_number,
        hub_shared: &settings.hub_shared,
    };
    let kit = kit.to_json()?;
    if let Some(xact_id) = trust.xact_id {
        delivery.hand_over(&kit, false)?;
        commit::commit(registration.into_hub(), &settings, xact_id, &trust.id)?;
        let slot = trust.slot.unwrap_or_default();
        info!("registered trust {name:?} as {} with slot {slot}", trust.id);
    } else {
        // Nothing was written, and nothing is left to do on the hub.
        drop(registration);
        if trust.namesakes > 1 {
            warn!("{} trusts are named {name:?}; this is the oldest", trust.namesakes);
        }
        delivery.hand_over(&kit, true)?;
        info!("trust {name:?} is already registered as {}; its kit has no credentials", trust.id);
    }
    delivery.receipt()
}

fn start_logger(level: LevelFilter) {
    // This crate alone: rusoto and tokio-postgres log requests, bodies and parameters.
    let logger = stderrlog::new()
        .module(module_path!())
        .color(stderrlog::ColorChoice::Never)
        .verbosity(level)
        .init();
    debug_assert!(logger.is_ok());
}

fn report(failure: &Failure) -> ExitCode {
    error!("{failure}");
    error!("next: {}", failure.next);
    ExitCode::FAILURE
}

fn print(text: &str) -> ExitCode {
    match Stdout::open().and_then(|mut stdout| stdout.print(text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            start_logger(LevelFilter::Error);
            error!("cannot print to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}
