package daemon

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/port"
)

// lineLimit limits how many lines of one kind are logged. A guest may be able to cause them at
// any rate.
type lineLimit struct {
	began   time.Time
	shown   int
	skipped int
}

// allow reports whether a line may be logged now: at most burst in a window. It also returns how
// many lines were left out in the window before.
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

// next returns the time after now at which skipped lines are due to be summed up.
func (l *lineLimit) next(now time.Time, window time.Duration) (d time.Duration, due bool) {
	return max(0, window-now.Sub(l.began)), l.skipped > 0
}

// A machine that connects and hangs up in a loop changes its port's state at any rate. stateBurst
// lines per stateWindow are enough to show that.
const (
	stateBurst  = 20
	stateWindow = 10 * time.Second
)

// logState logs the port's state or reason, which changed from the one given, unless it changes
// too often.
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

// notice logs the notice of a working port.
func (m *manager) notice(p *managed) {
	if n := p.notice(); n != "" && n != p.noticed {
		m.log.Warn("port notice", "port", p.spec.Name, "kind", p.spec.Kind, "notice", n)
		p.noticed = n
	}
}

// notice says what a user should know of a working port; empty if there is nothing.
func (p *managed) notice() string {
	if n, ok := p.dev.(port.Noticer); ok {
		if text := n.Notice(); text != "" {
			return text
		}
	}
	if _, ok := p.dev.(port.KernelEnd); ok {
		return cmp.Or(p.link.Ahead(), p.ahead)
	}
	return p.ahead
}
