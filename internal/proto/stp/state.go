package stp

// State is what a port does with frames (17.30).
type State uint8

// The states.
const (
	Discarding State = iota // drop all but BPDUs
	Learning                // learn source addresses, drop
	Forwarding              // learn and forward
)

func (s State) String() string {
	return [...]string{"discarding", "learning", "forwarding"}[s]
}

// stateTransition is the Port State Transition machine (17.30). Its states are the
// port's states.
func (p *port) stateTransition() bool {
	switch {
	case p.state == Learning && !p.learn, p.state == Forwarding && !p.forward:
		p.enterDiscarding()
	case p.state == Discarding && p.learn:
		p.enterState(Learning)
	case p.state == Learning && p.forward:
		p.enterState(Forwarding)
	default:
		return false
	}
	return true
}

func (p *port) enterDiscarding() { p.enterState(Discarding) }

func (p *port) enterState(s State) {
	p.b.act.SetState(p.number, s)
	p.state = s
}
