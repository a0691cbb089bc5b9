package stp

// migrationState is a state of Port Protocol Migration (17.24).
type migrationState uint8

const (
	migrationCheckingRSTP migrationState = iota
	migrationSelectingSTP
	migrationSensing
)

// protocolMigration is the Port Protocol Migration machine (17.24): it determines
// whether the neighbours understand RSTP. rstpVersion is always true here.
func (p *port) protocolMigration() bool {
	switch p.migration {
	case migrationCheckingRSTP:
		switch {
		case p.mdelayWhile == 0:
			p.enterSensing()
		case p.mdelayWhile != migrateTime && !p.enabled():
			p.enterCheckingRSTP()
		default:
			return false
		}
	case migrationSelectingSTP:
		if p.mdelayWhile != 0 && p.enabled() && !p.mcheck {
			return false
		}
		p.enterSensing()
	case migrationSensing:
		switch {
		case !p.enabled() || p.mcheck || !p.sendRSTP && p.rcvdRSTP:
			p.enterCheckingRSTP()
		case p.sendRSTP && p.rcvdSTP:
			p.migration = migrationSelectingSTP
			p.sendRSTP = false
			p.mdelayWhile = migrateTime
		default:
			return false
		}
	}
	return true
}

func (p *port) enterCheckingRSTP() {
	p.migration = migrationCheckingRSTP
	p.mcheck = false
	p.sendRSTP = true
	p.mdelayWhile = migrateTime
}

func (p *port) enterSensing() {
	p.migration = migrationSensing
	p.rcvdRSTP, p.rcvdSTP = false, false
}
