package main

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/setting"
	"github.com/vswitch/vswitch/port/tap"
)

// TestSpareProcessors: a host with few processors gets four, unless the user chose.
func TestSpareProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, c := range []struct {
		chosen     string
		host, want int
	}{{"", 1, 4}, {"", 4, 4}, {"", 6, 6}, {"1", 1, 1}} {
		t.Setenv("GOMAXPROCS", c.chosen)
		runtime.GOMAXPROCS(c.host)
		spareProcessors()
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("GOMAXPROCS=%q on %d processors: %d, want %d", c.chosen, c.host, got, c.want)
		}
	}
}

// The ranges of run's own flags are those of what they set.
func TestRunFlags(t *testing.T) {
	for _, f := range setting.Fields(runFlags{}) {
		want := map[string][2]uint64{"fdb_size": {1, fdb.MaxCapacity}, "mtu": {tap.MinMTU, tap.MaxMTU}}[f.Key]
		if got := [2]uint64{uint64(f.Min), f.Max}; got != want {
			t.Errorf("--%s is %d to %d, want %d to %d", f.Flag, got[0], got[1], want[0], want[1])
		}
	}
}

// An error passes nothing to the terminal that it might obey.
func TestErrorIsPrintable(t *testing.T) {
	var out, errs bytes.Buffer
	code := run([]string{"vswitch", "\x1b[2J\xff\u202eé"}, &out, &errs)
	if want := `vswitch: there is no command`; code != exitUsage || !strings.HasPrefix(errs.String(), want) {
		t.Errorf("%d, %q", code, &errs)
	}
	errs.Reset()
	printError(&errs, errors.New("open \x1b[2J\u202eé: no such file\nx"), false)
	if want := "vswitch: open \\x1b[2J\\u202eé: no such file\\nx\n"; errs.String() != want {
		t.Errorf("%q, want %q", &errs, want)
	}
}

// An argument that is no text is refused: JSON would make another of it.
func TestArgumentsAreText(t *testing.T) {
	for _, args := range [][]string{{"mirror", "del", "\xff"}, {"add-port", "vm0", "--path", "/\xff"}, {"qemu-args", "a\xffb"}} {
		var out, errs bytes.Buffer
		if code := run(append([]string{"vswitch"}, args...), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "is no text in UTF-8") {
			t.Errorf("%q: %d, %q", args, code, &errs)
		}
	}
}
