//! The master process: API server, scheduler and controllers, wired together.
