//! The child process that the tests compile in: it knows `compile_child` and nothing else.

fn main() -> std::io::Result<()> {
    chaski_modules::compile_child(std::io::stdin(), std::io::stdout())
}
