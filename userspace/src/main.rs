//! The `veltrix` binary: the command line of the library beside it.

fn main() -> std::process::ExitCode {
    veltrix::cli::main()
}
