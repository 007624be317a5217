#!/usr/bin/env bash
# Passes the output of `cargo test` through and adds up the counts of all its programs.
exec awk '
    { print; fflush() }
    /^test result:/ { programs++; passed += $4; failed += $6; ignored += $8 }
    END {
        printf "\n%d passed, %d failed, %d ignored, in %d test programs\n", passed, failed, ignored, programs
    }
'
