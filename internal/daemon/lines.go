package daemon

import (
	"context"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// lineLimit bounds how many lines of one kind are logged. What causes them may be a guest's
// to repeat.
type lineLimit struct {
	began   time.Time
	shown   int
	skipped int
}

// allow reports whether a line at now may be logged, as one of burst in a window, and how
// many were left out in the window before.
func (l *lineLimit) allow(now time.Time, burst int, window time.Duration) (ok bool, skipped int) {
	if now.Sub(l.began) >= window {
		skipped = l.skipped
		*l = lineLimit{began: now}
	}
	if l.shown == burst {
		l.skipped++
		return false, skipped
	}
	l.shown++
	return true, skipped
}

// next is how long after now lines that were left out are due to be summed up.
func (l *lineLimit) next(now time.Time, window time.Duration) (d time.Duration, due bool) {
	return max(0, window-now.Sub(l.began)), l.skipped > 0
}

// A machine that connects and hangs up in a loop changes the state of its port as often as
// it likes. stateBurst lines a stateWindow show that.
const (
	stateBurst  = 20
	stateWindow = 10 * time.Second
)

// logState logs the state of a port, or its reason, which was another before, unless it
// changes too often.
func (m *manager) logState(p *managed, from api.State) {
	ok, skipped := p.lines.allow(time.Now(), stateBurst, stateWindow)
	if !ok {
		return
	}
	level := slog.LevelInfo
	if p.state == api.StateWaiting || p.state == api.StateDown {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("port", p.spec.Name), slog.String("kind", p.spec.Kind), slog.String("state", string(p.state)),
	}
	if from != "" && from != p.state {
		attrs = append(attrs, slog.String("was", string(from)))
	}
	if level == slog.LevelWarn && p.reason != "" {
		attrs = append(attrs, slog.String("reason", p.reason))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int("left_out", skipped))
	}
	m.log.LogAttrs(context.Background(), level, "port state", attrs...)
}

// sumUp logs the states of ports that changed too often to log each change.
func (m *manager) sumUp(now time.Time) {
	for _, p := range m.ports {
		if d, due := p.lines.next(now, stateWindow); due && d == 0 {
			m.logState(p, "")
		}
	}
}

// notice logs what a port that works has to tell.
func (m *manager) notice(p *managed) {
	if n := noticeOf(p.dev); n != "" && n != p.noticed {
		m.log.Warn("port notice", "port", p.spec.Name, "kind", p.spec.Kind, "notice", n)
		p.noticed = n
	}
}

func noticeOf(dev port.Port) string {
	if n, ok := dev.(port.Noticer); ok {
		return n.Notice()
	}
	return ""
}
