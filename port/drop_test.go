package port_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/port"
)

func TestEveryDropIsExplained(t *testing.T) {
	names, words := make(map[string]port.Drop), make(map[string]port.Drop)
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	for d := port.DropNone + 1; d < port.NumDrops; d++ {
		i := d.Info()
		if !snake.MatchString(i.Name) || i.Words == "" || strings.Contains(i.Words, "\n") {
			t.Errorf("%d is %+v", d, i)
		}
		if i.Direction != port.OnInput && i.Direction != port.OnOutput {
			t.Errorf("%s has the direction %q", d, i.Direction)
		}
		if other, ok := names[i.Name]; ok {
			t.Errorf("%d and %d have one name", d, other)
		}
		if other, ok := words[i.Words]; ok {
			t.Errorf("%s and %s are explained alike", d, other)
		}
		names[i.Name], words[i.Words] = d, d
	}
	if s := port.NumDrops.String(); !strings.HasPrefix(s, "drop(") {
		t.Errorf("a reason that does not exist is called %q", s)
	}
}
