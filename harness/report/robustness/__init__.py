"""What a report shows of classifiers under attack: leaderboard, transfer, cost, figures and adversarial images."""
