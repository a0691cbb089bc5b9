package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/vswitch/vswitch/api"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name:      "top",
		Usage:     "show the busiest ports, live",
		UsageText: "vswitch top [flags]",
		Description: `Shows what each port carries in a second, the busiest ports first, and goes on until
q is pressed. DROP/s counts frames that were not delivered, REASON says why most of
them were not; FAST is the share of received frames that the kernel forwarded.

Keys: t, r, x, d, f, n sort by traffic, rx, tx, drops, fast path or name; / asks for a
part of a name, kind or state to show alone; q ends.

With --once, and where the output is no terminal, it prints one table and ends.
NO_COLOR in the environment turns colours off.

Example:

    vswitch top --sort drops
    vswitch top --once --filter vm -o json`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "once", Usage: "print one table and end"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "`TIME` between samples"},
			oneOf(&cli.StringFlag{Name: "sort", Value: rateOrder[0], Usage: "`ORDER`: " + strings.Join(rateOrder, ", ")}, rateOrder),
			&cli.StringFlag{Name: "filter", Usage: "show only ports with this `TEXT` in their name, kind or state"},
		},
		Action: steering(top),
	}
}

// shortestInterval keeps commands from taking the daemon's time.
const shortestInterval = 100 * time.Millisecond

func top(c *cli.Context, cl *api.Client, _ []string) error {
	v := &topView{order: c.String("sort"), filter: c.String("filter"), color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	interval := c.Duration("interval")
	if !slices.Contains(rateOrder, v.order) {
		return usagef("there is no order %q; use %s", v.order, strings.Join(rateOrder, ", "))
	}
	if interval < shortestInterval {
		return usagef("an interval of %v is too short; use %v or more", interval, shortestInterval)
	}
	f, err := format(c)
	if err != nil {
		return err
	}
	out, terminal := c.App.Writer.(*os.File)
	terminal = terminal && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(os.Stdin.Fd()))
	if c.Bool("once") || f == "json" || !terminal {
		return showRates(c, cl, interval, v.order, func(all []rate) []rate { return matchRates(all, v.filter) })
	}
	return v.run(c.Context, cl, out, interval)
}

// sampler takes samples and returns the rates between them.
type sampler struct {
	client *api.Client
	ports  []api.Port
	at     time.Time
}

// next takes a sample. The first one returns rates of 0.
func (s *sampler) next(ctx context.Context) ([]rate, error) {
	ports, err := s.client.Ports(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	before, d := s.ports, now.Sub(s.at)
	if before == nil {
		before = ports
	}
	s.ports, s.at = ports, now
	return ratesOf(before, ports, d), nil
}

// showRates prints those rates of one interval that only returns.
func showRates(c *cli.Context, cl *api.Client, interval time.Duration, order string, only func([]rate) []rate) error {
	s := sampler{client: cl}
	if _, err := s.next(c.Context); err != nil {
		return err
	}
	select {
	case <-time.After(interval):
	case <-c.Context.Done():
		return c.Context.Err()
	}
	all, err := s.next(c.Context)
	if err != nil {
		return err
	}
	all = only(all)
	sortRates(all, order)
	return show(c, all, func(w io.Writer) {
		fmt.Fprintln(w, rateHead)
		for i := range all {
			fmt.Fprintln(w, rateLine(&all[i]))
		}
	})
}

// topView is the screen of `vswitch top`.
type topView struct {
	order, filter string
	typing        bool // the filter is being typed
	color         bool

	rates []rate
	taken bool // rates are of an interval
}

// run shows the screen until the user ends it.
func (v *topView) run(ctx context.Context, cl *api.Client, out *os.File, interval time.Duration) error {
	in := int(os.Stdin.Fd())
	before, err := term.MakeRaw(in)
	if err != nil {
		return err
	}
	defer term.Restore(in, before)
	fmt.Fprint(out, "\x1b[?1049h\x1b[?25l")       // the other screen, without a cursor
	defer fmt.Fprint(out, "\x1b[?25h\x1b[?1049l") // back

	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	keys := make(chan rune)
	go func() {
		defer close(keys)
		for r := bufio.NewReader(os.Stdin); ; {
			k, _, err := r.ReadRune()
			if err != nil {
				return
			}
			keys <- k
		}
	}()

	s := sampler{client: cl}
	if v.rates, err = s.next(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		width, height, err := term.GetSize(int(out.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		if _, err := io.WriteString(out, v.screen(width, height)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-tick.C:
			if v.rates, err = s.next(ctx); errors.Is(err, context.Canceled) {
				return nil
			} else if err != nil {
				return err
			}
			v.taken = true
		case k, ok := <-keys:
			if !ok || v.key(k) {
				return nil
			}
		}
	}
}

const (
	keyInterrupt = 3 // Ctrl-C, which a raw terminal passes on
	keyEscape    = 27
	keyBackspace = 127
)

// key handles a key and reports whether it ends the program.
func (v *topView) key(k rune) (end bool) {
	if k == keyInterrupt {
		return true
	}
	if v.typing {
		switch {
		case k == '\r' || k == '\n':
			v.typing = false
		case k == keyEscape:
			v.typing, v.filter = false, ""
		case k == keyBackspace || k == '\b':
			_, n := utf8.DecodeLastRuneInString(v.filter)
			v.filter = v.filter[:len(v.filter)-n]
		case unicode.IsPrint(k) && len(v.filter) < 40:
			v.filter += string(k)
		}
		return false
	}
	switch k {
	case 'q':
		return true
	case '/':
		v.typing = true
	case 't', 'r', 'x', 'd', 'f', 'n':
		v.order = rateOrder[strings.IndexRune("trxdfn", k)]
	}
	return false
}

// screen draws the whole screen, without a flicker: each line replaces the one before.
func (v *topView) screen(width, height int) string {
	all := matchRates(v.rates, v.filter)
	sortRates(all, v.order)
	lines := []string{v.summary(), v.prompt(len(all)), rateHead}
	for i := range all {
		if len(lines) == height {
			break
		}
		lines = append(lines, rateLine(&all[i]))
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines[:min(len(lines), height)] {
		if r := []rune(l); len(r) > width {
			l = string(r[:width])
		}
		switch {
		case !v.color:
		case i == 2:
			l = "\x1b[7m" + l + strings.Repeat(" ", max(0, width-len(l))) + "\x1b[0m"
		case i > 2 && all[i-3].Drops > 0:
			l = "\x1b[31m" + l + "\x1b[0m"
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// summary is the first line: all ports together.
func (v *topView) summary() string {
	states := make(map[api.State]int)
	var sum rate
	for i := range v.rates {
		r := &v.rates[i]
		states[r.State]++
		sum.RXBits += r.RXBits
		sum.TXBits += r.TXBits
		sum.Drops += r.Drops
	}
	s := fmt.Sprintf("%d ports:", len(v.rates))
	for _, state := range api.States {
		if n := states[state]; n > 0 {
			s += fmt.Sprintf(" %d %s", n, state)
		}
	}
	if !v.taken {
		return s + "  measuring…"
	}
	return s + fmt.Sprintf("  in %sbit/s  out %sbit/s  drops %s/s", short(sum.RXBits), short(sum.TXBits), short(sum.Drops))
}

// prompt is the second line: what is shown, and by which keys.
func (v *topView) prompt(shown int) string {
	switch {
	case v.typing:
		return "filter: " + v.filter + "_"
	case v.filter != "":
		return fmt.Sprintf("by %s, %d ports with %q  (t r x d f n sort, / filter, q quit)", v.order, shown, v.filter)
	}
	return fmt.Sprintf("by %s  (t r x d f n sort, / filter, q quit)", v.order)
}
