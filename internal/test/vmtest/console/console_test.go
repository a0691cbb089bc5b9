package console

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell puts a shell behind a unix socket, as QEMU does with a guest's.
func shell(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "console")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		f, err := conn.(*net.UnixConn).File()
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		// What a boot leaves in the line, and an answer that comes late.
		conn.Write([]byte("Booting\r\n@@OTHER>0@@\r\n"))
		sh := exec.Command("sh")
		sh.Stdin, sh.Stdout, sh.Stderr = f, f, f
		sh.Run() // it ends when the test closes its side
	}()
	return path
}

func dial(t *testing.T, path string) (*Console, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	c, err := Dial(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, ctx
}

func TestRun(t *testing.T) {
	c, ctx := dial(t, shell(t))
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"echo hello":                     "hello\n",
		"true":                           "",
		"echo a; echo b >&2":             "a\nb\n",
		"printf unended":                 "unended",
		"cat <<'END'\nx $y 'z'\nEND":     "x $y 'z'\n",
		"cat":                            "", // standard input is empty
		"echo @@x@@":                     "@@x@@\n",
		"if false; then :; else pwd; fi": mustGetwd(t) + "\n",
	} {
		if got, err := c.Run(ctx, command); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", command, got, err, want)
		}
	}
	if !strings.HasPrefix(c.Log(), "Booting\n") {
		t.Errorf("log begins with %.20q", c.Log())
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunFails(t *testing.T) {
	c, ctx := dial(t, shell(t))
	out, err := c.Run(ctx, "echo why; exit 7")
	var exit *ExitError
	if !errors.As(err, &exit) || exit.Code != 7 || out != "why\n" {
		t.Errorf("got %q, %v", out, err)
	}
	if _, err := c.Run(ctx, strings.Repeat("x", 5000)); err == nil {
		t.Error("a line longer than the console's is taken")
	}
	if got, err := c.Run(ctx, "echo still here"); err != nil || got != "still here\n" {
		t.Errorf("after a failure: %q, %v", got, err)
	}

	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := c.Run(short, "sleep 0.5"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a command that takes too long: %v", err)
	}
	// Its late end is not taken for that of the next.
	if got, err := c.Run(ctx, "echo next"); err != nil || got != "next\n" {
		t.Errorf("after a late one: %q, %v", got, err)
	}
}

func TestGuestEnds(t *testing.T) {
	c, ctx := dial(t, shell(t))
	if _, err := c.Run(ctx, "kill -9 $$"); err == nil || ctx.Err() != nil {
		t.Errorf("the guest ended: %v", err)
	}
	if _, err := c.Run(ctx, "true"); err == nil {
		t.Error("a command ran in a guest that has ended")
	}
}

func TestDialGivesUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, filepath.Join(t.TempDir(), "nobody")); err == nil {
		t.Error("no error where there is no guest")
	}
}
