//! The rules of the contract that the model can switch off, and the doors that nobody can shut.

/// An enum whose items come in groups, and a list of each group.
macro_rules! list {
    (
        $(#[$about:meta])*
        $name:ident { $($(#[$group_words:meta])* $group:ident { $($(#[$words:meta])* $item:ident,)* })* }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Debug)]
        pub enum $name {
            $($($(#[$words])* $item,)*)*
        }
        impl $name {
            $($(#[$group_words])* pub const $group: &[$name] = &[$($name::$item,)*];)*
        }
    };
}

list! {
    /// A rule, and what the contract says of it.
    Rule {
        /// The commit and its outcome, in all homes.
        OUTCOME {
            /// "The server must say that this transaction is committed": an answer to COMMIT that is no
            /// error proves nothing.
            OnlyCommittedMeansCommitted,
            /// "If the connection breaks during the commit, reconnect and ask."
            BrokenCommitIsAskedFor,
            /// "Aborted is failure": a transaction that is still in progress is not aborted.
            InProgressIsNoAnswer,
            /// "If no answer can be had, leave what was delivered in place."
            UnknownLeavesTheKit,
            /// "Only the primary is believed."
            OnlyPrimaryBelieved,
            /// "First whether the server is in recovery, then, in later statements, the status."
            RecoveryAskedBeforeStatus,
            /// "And then the row": a number that a crashed server gave out again is somebody else's.
            CommittedNeedsItsRow,
            /// "The order of the questions matters: … the status, and then the row." A second line:
        /// the next rule does without it.
            RowAskedAfterStatus,
            /// "A committed transaction whose row cannot be seen is unknown, not aborted."
            CommittedWithoutRowIsUnknown,
            /// "The transaction raises synchronous_commit to on": what was acknowledged survives a crash.
            CommitIsDurable,
        }
        /// The rest of the program's rules.
        PROGRAM {
            /// "No signal at any instant breaks the promise": a run that has begun to commit finds out
            /// the outcome first.
            SignalFindsTheOutcome,
            /// "After the commit it prints the receipt."
            ReceiptAfterCommit,
            /// "Before the kit is delivered the statement's own answer must show … this very hash."
            RowsAreChecked,
            /// "A pooler that runs the statements outside the transaction is recognised and refused."
            StatementPoolingIsRefused,
            /// "Two registrations of one name at the same time end as one row and one full kit."
            LockOfTheName,

        }
        /// The acknowledgement.
        ACKNOWLEDGEMENT {
            /// "Commit only after the reader acknowledges the kit."
            AckBeforeCommit,
            /// "Any other line on stdin … means that the kit was not received."
            OtherLineIsNoAck,
            /// "Its end … means that the kit was not received."
            EndOfStdinIsNoAck,
            /// "Silence means that the kit was not received."
            SilenceIsNoAck,

        }
        /// The script that reads stdout.
        FILES {
            /// "It writes the kit to an owner-only file with a name of its own."
            NameOfItsOwn,
            /// "The reader stores the kit durably first and acknowledges after": what could not be
            /// written is not acknowledged.
            AckOnlyWhatIsStored,
            /// "It syncs the file … and acknowledges."
            SyncBeforeAck,
            /// "It syncs the file, its folder … and acknowledges."
            SyncFolder,
            /// "… and the parent of a folder that it made."
            SyncParentFolder,
            /// "The receipt line means success", "whatever the exit status says".
            ReceiptNotStatus,
            /// "Only the verdict [] permits it to delete the kit's file."
            OnlyEmptyPermitsDelete,
            /// "The only copy of a kit is never truncated, rewritten."
            OnlyCopyIsNeverRewritten,
            /// "Its final name by link": never moved over another kit.
            LinkNotRename,
            /// "It syncs the folder again, and only then removes the other name."
            SyncBetweenLinkAndUnlink,
            /// "If its trust_id is that of the metadata-only kit that a re-run gets, that file is the
            /// valid kit": and else it is not.
            PickUpOnlyById,
        }
        /// The script that hands the kit to a sink.
        SINK {
            /// "One run per trust number at a time." Files alone would do without it: a link is never
        /// made over another kit, and both runs link the same one.
            LockPerNumber,
            /// "KIT_SINK runs … after the commit."
            SinkOnlyAfterReceipt,
            /// "If any stage fails the kit stays in its file."
            SinkFailureKeepsTheKit,

        }
        /// --check-kit and --require-existing.
        LOOKS {
            /// "worthless is said only by the primary."
            WorthlessOnlyByThePrimary,
            /// "The same order holds for --require-existing", where a standby's "unknown trust" is not
            /// an answer.
            UnknownTrustOnlyByThePrimary,
            /// "The order of the questions matters: first whether the server is in recovery", here too.
            LookAsksForRecoveryFirst,
            /// "… and only while holding the name's lock, so that no registration is still open."
            WorthlessUnderTheNamesLock,

        }
        /// SSM and ECS.
        ECS {
            /// "Delivery comes before the commit": the put, too.
            PutBeforeCommit,
            /// "Should the commit fail after the put, [] is put over it."
            TakeBackPutsEmptyOver,
            /// "No receipt while a put is in doubt."
            NoReceiptWhilePutInDoubt,
            /// "The parameter's name is … kept in a file before run-task, and the next run reads it."
            NameKeptBeforeRunTask,
            /// "… kept in a synced file."
            NameFileIsSynced,
            /// "Every try of one run-task carries the same client token."
            SameClientToken,
            /// "One run per parameter name, never reused."
            OneRunPerParameterName,
            /// "A try that seemed to fail" may have started the task.
            OnlyPlainRefusalMeansNoTask,
            /// "A script that does not demand the receipt can take a kit that was never registered."
            ReceiptIsDemanded,
            /// "A kit with credentials beside a receipt and an ERROR line is not believed."
            ReceiptAndErrorIsNotBelieved,
            /// "Cannot say is never a reason to delete": a kit whose receipt was not seen stays.
            KitWithoutReceiptStays,
            /// "ParameterNotFound never leads to a delete, nor to 'not registered'."
            NotFoundIsNotAbsence,
            /// "Beside a receipt it is asked again."
            ReadParameterAgainBesideReceipt,
            /// "Deletes it as soon as the kit is stored": not before.
            DeleteOnlyAfterStored,
            /// "… stored durably (file synced, or sink succeeded)."
            DeleteOnlyAfterSync,
        }
    }
}

list! {
    /// What cannot be promised. An open door lets a kit be lost, and the documents say so.
    Door {
        /// All of them.
        ALL {
            /// "An asynchronous failover … can undo" a commit that was acknowledged.
            AsynchronousFailover,
            /// "An old primary that is still up beside the new one is beyond us."
            UnfencedOldPrimary,
            /// "Plain stdout without --await-ack is outside the promise from the moment the line is
            /// written."
            ReaderWithoutAck,
            /// "A sink's exit 0 must mean that it has stored the kit durably."
            SinkThatForgets,
            /// The receipt of a failed run can reach the log before its ERROR line, and a read of the
            /// parameter can be stale.
            ReceiptSeenBeforeError,
        }
    }
}

/// Which rules are off and which doors are open.
#[derive(Clone, Copy, Default)]
pub struct Rules {
    off: u64,
    open: u64,
}

impl Rules {
    pub fn without(rules: &[Rule]) -> Rules {
        Rules { off: rules.iter().fold(0, |off, rule| off | 1 << *rule as u64), open: 0 }
    }

    pub fn with_door(door: Door) -> Rules {
        Rules { off: 0, open: 1 << door as u64 }
    }

    pub fn on(self, rule: Rule) -> bool {
        self.off & 1 << rule as u64 == 0
    }

    pub fn is_open(self, door: Door) -> bool {
        self.open & 1 << door as u64 != 0
    }
}
