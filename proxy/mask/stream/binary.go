package stream

import (
	"regexp"
	"slices"
	"strings"
)

// Binary says that a command is known to read or write an archive, such as kubectl cp runs: its output must stay as it is.
// It knows the commands by their exact shape, and everything that could make one of them print something else, an option
// that runs a program or extracts to standard output, makes it a command like any other.
func Binary(argv []string) bool {
	if len(argv) == 3 && argv[0] == "sh" && argv[1] == "-c" {
		return resumed.MatchString(argv[2])
	}
	if len(argv) < 3 || !slices.Contains([]string{"tar", "/bin/tar", "/usr/bin/tar"}, argv[0]) {
		return false
	}
	args := argv[1:]
	for slices.Contains(harmless, args[0]) {
		if args = args[1:]; len(args) < 2 {
			return false
		}
	}
	mode := letters.FindStringSubmatch(args[0])
	if mode == nil || args[1] != "-" {
		return false
	}
	files := 0
	for args = args[2:]; len(args) > 0; args = args[1:] {
		switch a := args[0]; {
		case slices.Contains(harmless, a):
		case a == "-C" && len(args) > 1:
			args = args[1:]
		case strings.HasPrefix(a, "-"):
			return false
		default:
			files++
		}
	}
	return mode[1] == "" || files > 0
}

var (
	// letters are tar's options in front of an archive on standard input or output. To list what is extracted (v) would
	// print text on standard output.
	letters = regexp.MustCompile(`\A-?(?:(c)[vzjJhp]*|x[zjJmp]*)f\z`)

	// harmless are the long options of tar that say how and not what.
	harmless = []string{"--no-same-permissions", "--no-same-owner", "--same-permissions", "--same-owner", "--no-xattrs", "--numeric-owner", "--sparse"}

	// resumed is what kubectl cp runs when it may try again: the path is one word, and nothing a shell reads as more.
	resumed = regexp.MustCompile(`\Atar cf - [\w./@:+=,%][\w./@:+=,%-]* \| tail -c\+[0-9]+\z`)
)
