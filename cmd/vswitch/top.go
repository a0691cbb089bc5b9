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
	"github.com/vswitch/vswitch/internal/setting"
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
part of a name, kind or state to show alone; the arrows choose a port, and Enter shows
all about it: its drops in words, its stations, and what keeps it off the fast path;
Escape goes back; q ends.

With --once, and where the output is no terminal, it prints one table and ends.
NO_COLOR in the environment turns colours off.

Example:

    vswitch top --sort drops
    vswitch top --once --filter vm -o json`,
		Flags: append(ownFlags(topFlags{}),
			&cli.BoolFlag{Name: "once", Usage: "print one table and end"},
			oneOf(&cli.StringFlag{Name: "sort", Value: rateOrder[0], Usage: "`ORDER`: " + strings.Join(rateOrder, ", ")}, rateOrder),
			&cli.StringFlag{Name: "filter", Usage: "show only ports with this `TEXT` in their name, kind or state"},
		),
		Action: steering(top),
	}
}

type topFlags struct {
	Interval setting.Duration `json:"interval" arg:"TIME" default:"1s" help:"time between samples"`
}

// shortestInterval keeps commands from taking the daemon's time.
const shortestInterval = 100 * time.Millisecond

func top(c *cli.Context, cl *api.Client, _ []string) error {
	v := &topView{order: c.String("sort"), filter: c.String("filter"), color: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
	given, err := readOwn(c, topFlags{Interval: setting.Duration(time.Second)})
	if err != nil {
		return err
	}
	interval := time.Duration(given.(topFlags).Interval)
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
	out, terminal := c.App.Writer.(*output).Writer.(*os.File)
	terminal = terminal && term.IsTerminal(int(out.Fd())) && term.IsTerminal(int(os.Stdin.Fd()))
	if c.Bool("once") || f == "json" || !terminal {
		return showRates(c, cl, interval, v.order, func(all []rate) []rate { return matchRates(all, v.filter) })
	}
	return v.run(c.Context, cl, out, interval)
}

// sampler takes samples and returns the rates between them.
type sampler struct {
	client *api.Client
	before []api.Port // the sample before the last; nil: there was none
	ports  []api.Port // the last one
	at     time.Time
	took   time.Duration // between the two
}

// next takes a sample. The first one returns rates of 0.
func (s *sampler) next(ctx context.Context) ([]rate, error) {
	ports, err := s.client.Ports(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if s.before = s.ports; s.before == nil {
		s.before = ports
	}
	s.took = now.Sub(s.at)
	s.ports, s.at = ports, now
	return ratesOf(s.before, ports, s.took), nil
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

	chosen string    // the port that the cursor is at; empty: none
	shown  *portView // what is shown in place of the table; nil: the table
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
	go readKeys(os.Stdin, keys)

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
			if v.shown != nil {
				if err := v.shown.next(ctx, &s); err != nil {
					return err
				}
			}
		case k, ok := <-keys:
			if !ok || v.key(k) {
				return nil
			}
			if v.shown != nil && v.shown.words == nil { // it is new
				if err := v.shown.first(ctx, &s); err != nil {
					return err
				}
			}
		}
	}
}

const (
	keyInterrupt = 3 // Ctrl-C, which a raw terminal passes on
	keyEscape    = 27
	keyBackspace = 127
)

// Keys that terminals send as sequences of letters; no letter has these numbers.
const (
	keyUp rune = -1 - iota
	keyDown
	keyPageUp
	keyPageDown
	keyOther
)

// sequences are what terminals send for these keys, after Escape.
var sequences = map[string]rune{"[A": keyUp, "OA": keyUp, "[B": keyDown, "OB": keyDown, "[5~": keyPageUp, "[6~": keyPageDown}

// readKeys passes on the keys of a terminal until it is gone.
func readKeys(from io.Reader, keys chan<- rune) {
	defer close(keys)
	for r := bufio.NewReader(from); ; {
		k, _, err := r.ReadRune()
		if err != nil {
			return
		}
		// A sequence comes in one piece; the key Escape comes alone.
		if k == keyEscape && r.Buffered() > 0 {
			k = readSequence(r)
		}
		keys <- k
	}
}

// readSequence reads what follows Escape in a sequence.
func readSequence(r *bufio.Reader) rune {
	var s []byte
	for r.Buffered() > 0 && len(s) < 8 {
		b, _ := r.ReadByte() // it is there
		s = append(s, b)
		if len(s) > 1 && b >= 0x40 { // a final byte (ECMA-48)
			break
		}
	}
	if k, ok := sequences[string(s)]; ok {
		return k
	}
	return keyOther
}

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
	if v.shown != nil {
		if k == keyEscape || k == keyBackspace || k == '\r' {
			v.shown = nil
		}
		return k == 'q'
	}
	switch k {
	case 'q':
		return true
	case '/':
		v.typing = true
	case keyUp, 'k':
		v.move(-1)
	case keyDown, 'j':
		v.move(1)
	case keyPageUp:
		v.move(-page)
	case keyPageDown:
		v.move(page)
	case keyEscape:
		v.chosen = ""
	case '\r', '\n':
		if v.chosen == "" {
			v.move(1)
		}
		if v.chosen != "" {
			v.shown = &portView{name: v.chosen}
		}
	case 't', 'r', 'x', 'd', 'f', 'n':
		v.order = rateOrder[strings.IndexRune("trxdfn", k)]
	}
	return false
}

// page is how far the cursor moves with the keys for pages.
const page = 10

// listed returns the rates of the ports in the table, in its order.
func (v *topView) listed() []rate {
	all := matchRates(v.rates, v.filter)
	sortRates(all, v.order)
	return all
}

// at returns the place of the cursor in a list; -1: it is at none.
func (v *topView) at(all []rate) int {
	return slices.IndexFunc(all, func(r rate) bool { return r.Name == v.chosen })
}

// move moves the cursor.
func (v *topView) move(by int) {
	all := v.listed()
	if len(all) == 0 {
		return
	}
	to := 0
	if i := v.at(all); i >= 0 {
		to = min(max(i+by, 0), len(all)-1)
	}
	v.chosen = all[to].Name
}

// Colours of lines.
const (
	plainLine   = ""
	headLine    = "\x1b[7m"
	dropLine    = "\x1b[31m"
	chosenLine  = "\x1b[44;97m"
	defaultLine = "\x1b[0m"
)

// line is a line of the screen.
type line struct{ text, color string }

// screen draws the whole screen, without a flicker: each line replaces the one before.
func (v *topView) screen(width, height int) string {
	lines := v.lines(height)
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines[:min(len(lines), height)] {
		if r := []rune(l.text); len(r) > width {
			l.text = string(r[:width])
		}
		if v.color && l.color != plainLine {
			fill := ""
			if l.color != dropLine {
				fill = strings.Repeat(" ", max(0, width-utf8.RuneCountInString(l.text)))
			}
			l.text = l.color + l.text + fill + defaultLine
		}
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l.text + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// lines are those of the screen, as far as the table goes.
func (v *topView) lines(height int) []line {
	if v.shown != nil {
		return v.shown.lines(height)
	}
	all := v.listed()
	lines := []line{{v.summary(), plainLine}, {v.prompt(len(all)), plainLine}, {rateHead, headLine}}
	room := max(1, height-len(lines))
	cursor := v.at(all)
	first := max(0, cursor-room+1)
	for i := first; i < min(len(all), first+room); i++ {
		l := line{rateLine(&all[i]), plainLine}
		switch {
		case i == cursor:
			// A mark between name and state, for those who see no colours.
			text := []rune(l.text)
			text[nameWidth] = '<'
			l = line{string(text), chosenLine}
		case all[i].Drops > 0:
			l.color = dropLine
		}
		lines = append(lines, l)
	}
	return lines
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
		return fmt.Sprintf("by %s, %d ports with %q  (t r x d f n sort, / filter, Enter port, q quit)", v.order, shown, v.filter)
	}
	return fmt.Sprintf("by %s  (t r x d f n sort, / filter, Enter port, q quit)", v.order)
}
