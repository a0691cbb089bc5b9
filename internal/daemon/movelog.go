package daemon

import (
	"time"

	vswitch "github.com/vswitch/vswitch/switch"
)

// A station that is seen behind two ports moves with every frame. moveBurst lines
// a moveWindow show which one, and leave the log readable.
const (
	moveBurst  = 20
	moveWindow = 10 * time.Second
)

// moveLog bounds how many MAC moves are logged. It belongs to the switch's event
// goroutine.
type moveLog struct {
	began   time.Time
	shown   int
	skipped int
}

// allow tells whether a move at now is to be logged, and how many were left out
// in the window before.
func (l *moveLog) allow(now time.Time) (ok bool, skipped int) {
	if now.Sub(l.began) >= moveWindow {
		skipped = l.skipped
		*l = moveLog{began: now}
	}
	if l.shown == moveBurst {
		l.skipped++
		return false, skipped
	}
	l.shown++
	return true, skipped
}

func (m *manager) logMove(ev vswitch.MACMoved) {
	ok, skipped := m.moves.allow(time.Now())
	if skipped > 0 {
		m.log.Warn("more MAC moves than are logged", "left_out", skipped)
	}
	if !ok {
		return
	}
	var from, to string
	for _, p := range m.sw.Ports() {
		switch p.Number() {
		case ev.From:
			from = p.Name()
		case ev.To:
			to = p.Name()
		}
	}
	m.log.Info("MAC moved", "mac", ev.MAC, "vlan", ev.VLAN, "from", from, "to", to)
}
