package stacktest

// Done is closed when it ended.
func (p *Process) Done() <-chan struct{} { return p.done }
